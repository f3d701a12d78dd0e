"""The tensors in what a model gives, whatever its author keeps them in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn


def tensors(outputs: Any) -> dict[str, Tensor]:
    """Each tensor in an output, by where it lies: types, keys, positions and attributes.

    Looks into mappings, sequences, dataclasses and objects of the author's own classes.
    """
    return dict(_tensors(outputs, "", ()))


def _tensors(value: Any, place: str, holders: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
        return
    if id(value) in holders:  # it holds itself
        return
    for key, part in _parts(value):
        where = f"{place}{type(value).__name__}[{key!r}]"
        yield from _tensors(part, where, (*holders, id(value)))


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (tuple, list)):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif not isinstance(value, (type, nn.Module)) and hasattr(value, "__dict__"):
        yield from vars(value).items()
