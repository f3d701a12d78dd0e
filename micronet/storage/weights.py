"""State dicts in files that hold tensors and nothing that could run."""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from micronet.errors import DataError, describe_error, listed
from micronet.storage.file_kinds import kind_of_file
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
        with regular(path).open("rb") as file:  # by its name, torch would take it for another
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} holds more than tensors and numbers and is refused: loading it could run "
            f"code{_named_in(path)}. Of a model, save its state_dict()."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    return state


def _named_in(path: Path | str) -> str:
    """The first of another's classes and functions that a file of torch's asks for."""
    try:
        with Path(path).open("rb") as file:
            names = get_unsafe_globals_in_checkpoint(file)
    except Exception:  # of an older form, or damaged
        return ""
    return f", as it asks for {_first(sorted(names))}" if names else ""


def load_state(path: Path | str) -> dict[str, Tensor]:
    """A state_dict from safetensors or from a .pth of tensors.

    A .pth may hold the state_dict itself, or a checkpoint with it under one of `STATE_KEYS`.

    Raises:
        DataError: It can't be read, or holds anything but tensors; nothing in it is run.
    """
    return _state_in(path)[0]


STATE_KEYS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net"),
    *("state_dict_ema", "model_ema", "ema"),
)
"""Where checkpoints hold a model's state_dict: of several, what was trained and not its average."""


def _state_in(path: Path | str) -> tuple[dict[str, Tensor], str]:
    """A file's state_dict, and how it is held if not as it is, as a part of a sentence."""
    path = regular(path)
    try:
        kind = kind_of_file(path)
        if kind == "safetensors":
            return load_file(path), ""
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    if kind != "torch":
        raise DataError(f"{path} holds no weights: {kind}.")
    state: Any = load_training_state(path)
    way: list[str] = []
    while isinstance(state, Mapping) and (
        found := [key for key in STATE_KEYS if isinstance(state.get(key), Mapping)]
    ):
        others = f" (not {listed(map(repr, found[1:]))})" if found[1:] else ""
        way.append(f"{found[0]!r}{others}")
        state = state[found[0]]
    if not isinstance(state, Mapping):
        raise DataError(f"{path} holds no state_dict, but a {type(state).__name__}.")
    for key, value in state.items():
        if not isinstance(key, str):
            raise DataError(f"{path} holds no state_dict: {key!r} in it is no name.")
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path} holds no state_dict: {key!r} in it is a {type(value).__name__}, no tensor."
            )
    return dict(state), f"under {' in '.join(reversed(way))}" if way else ""


def load_weights(model: nn.Module, path: Path | str) -> str | None:
    """Fills a model with weights that a training of any kind has left in a file.

    Names may bear what wrappers put before them: `module.` of DataParallel and averages,
    `_orig_mod.` of torch.compile, `model.` of Lightning.

    Returns:
        A sentence on what was understood, `None` if the file holds the state_dict as it is.

    Raises:
        DataError: As `load_state` and `fill`.
    """
    state, place = _state_in(path)
    prefix, bare = _without_prefix(state, model.state_dict().keys())
    fill(model, bare, path)
    told = [place, f"with {prefix!r} before each name" if prefix else ""]
    understood = " ".join(filter(None, told))
    return f"{path}: the weights are those {understood}." if understood else None


_PREFIXES = ("module.", "_orig_mod.", "model.")
_COUNT_OF_AVERAGED = "n_averaged"


def _without_prefix(
    state: dict[str, Tensor], own: Collection[str]
) -> tuple[str, dict[str, Tensor]]:
    """A state with the names of a model's own, and the prefix that its names bore, if any did."""
    removed, bare = "", state
    while bare.keys() != own:
        names = bare.keys() - {_COUNT_OF_AVERAGED}
        prefix = next((p for p in _PREFIXES if names and all(n.startswith(p) for n in names)), None)
        if prefix is None:
            break
        removed, bare = removed + prefix, {n[len(prefix) :]: bare[n] for n in bare if n in names}
    fits_better = len(own & bare.keys()) > len(own & state.keys())
    return (removed, bare) if fits_better else ("", state)


_FIRST = 3
"""Keys of each kind that a message names."""


def fill(model: nn.Module, state: Mapping[str, Tensor], origin: Path | str) -> None:
    """Loads a state_dict into a model, completely.

    Raises:
        DataError: Keys are missing, left over, of another shape or another kind of numbers; the
            message names the first of each.
    """
    own = model.state_dict()
    both = [key for key in own if key in state]
    faults = {
        "it lacks": [f"{key!r} {list(own[key].shape)}" for key in own if key not in state],
        "it has too many": [f"{key!r} {list(state[key].shape)}" for key in state if key not in own],
        "of another shape are": [
            f"{key!r} {list(state[key].shape)}, in the model {list(own[key].shape)}"
            for key in both
            if own[key].shape != state[key].shape
        ],
        "other numbers hold": [
            f"{key!r} {_numbers(state[key])}, in the model {_numbers(own[key])}"
            for key in both
            if _numbers(own[key]) != _numbers(state[key])
        ],
    }
    if any(faults.values()):
        told = [f"{what} {_first(names)}" for what, names in faults.items() if names]
        raise DataError(f"{origin} does not fit the model: {'; '.join(told)}.")
    try:
        model.load_state_dict(state)
    except Exception as error:  # a layer may have its own way to load
        raise DataError(f"{origin} does not fit the model: {describe_error(error)}.") from error


def _first(names: list[str]) -> str:
    more = len(names) - _FIRST
    return f"{listed(names[:_FIRST])}{f' and {more} more' if more > 0 else ''}"


def _numbers(tensor: Tensor) -> str:
    """What a tensor's numbers are: copied into others, they would be other numbers."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        return "no plain numbers"
    if tensor.is_complex():
        return "complex numbers"
    return "floats" if tensor.is_floating_point() else "integers"
