"""State dicts in files that hold tensors and nothing that could run."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from micronet.errors import DataError
from micronet.storage.files import regular, write_bytes


def save_state(state: Mapping[str, Tensor], path: Path | str) -> None:
    """Writes a state_dict as safetensors, whole or not at all."""
    own = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
    write_bytes(path, save(own))


def save_training_state(state: Mapping[str, Any], path: Path | str) -> None:
    """Writes nested dicts of tensors and numbers, for `load_training_state`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_bytes(path, buffer.getvalue())


def load_training_state(path: Path | str) -> dict[str, Any]:
    """What `save_training_state` wrote; runs no code. Raises DataError."""
    try:
        state: dict[str, Any] = torch.load(regular(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} holds more than tensors and numbers and is refused: loading it could run code."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    return state


def load_state(path: Path | str) -> dict[str, Tensor]:
    """A state_dict from safetensors or from a .pth of tensors.

    A .pth may hold the state_dict itself or a dict with it under "state_dict".

    Raises:
        DataError: It can't be read, or holds anything but tensors; nothing in it is run.
    """
    if Path(path).suffix == ".safetensors":
        try:
            return load_file(regular(path))
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} can't be read: {error}") from error
    state = load_training_state(path)
    inner = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(inner, Mapping) or not all(isinstance(v, Tensor) for v in inner.values()):
        raise DataError(f"{path} holds no state_dict.")
    return dict(inner)


def fill(model: nn.Module, state: Mapping[str, Tensor], origin: Path | str) -> None:
    """Loads a state_dict into a model, completely.

    Raises:
        DataError: A key is missing, left over or of another shape; the message names it.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    if missing or extra:
        words = f"lacks {missing[0]!r}" if missing else f"has {extra[0]!r} too many"
        more = len(missing) + len(extra) - 1
        raise DataError(
            f"{origin} does not fit the model: it {words}{f' ({more} more)' if more else ''}."
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"{origin} does not fit the model: {str(error).splitlines()[-1].strip()}"
        ) from error
