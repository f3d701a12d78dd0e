"""A training's checkpoint between two epochs: torch's own form, behind a sum of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from micronet.errors import DataError, describe_error
from micronet.storage.files import read_bytes, write_bytes

_MAGIC = b"micronet epoch 1\n"
_START = len(_MAGIC) + hashlib.sha256().digest_size


def save_epoch(state: Mapping[str, Any], path: Path | str) -> None:
    """Writes nested dicts of tensors and numbers, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write_bytes(path, _MAGIC + hashlib.sha256(content).digest() + content)


def load_epoch(path: Path | str) -> dict[str, Any]:
    """What `save_epoch` wrote.

    Raises:
        DataError: It can't be read, was changed, or holds more than tensors and numbers; nothing
            in it is run.
    """
    whole = read_bytes(path)
    content = memoryview(whole)[_START:]
    if whole[:_START] != _MAGIC + hashlib.sha256(content).digest():
        raise DataError(f"{path} was changed since it was written.")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # somebody else's file, with a sum that fits
        raise DataError(f"{path} can't be read: {describe_error(error)}.") from error
    if not isinstance(state, dict):
        raise DataError(f"{path} holds no state of a training.")
    return state
