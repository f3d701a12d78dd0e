"""A training's checkpoint is looked at before it is loaded: kernels do not check what they get."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from micronet.errors import DataError
from micronet.training.curve import EPOCH, LOSS, RATE

_OF_A_PARAMETER = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}
"""What an optimizer keeps for each parameter."""


@attrs.define
class TrainingState:
    """Everything that the rest of a training depends on, between two epochs.

    Args:
        epoch: Epochs done.
        model, optimizer, scheduler, scaler: Their state_dicts.
        average: That of the weights' moving average, if one is kept.
        best: The model's state_dict after the best epoch, if that is kept.
        curve: What each epoch came to.
    """

    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    scaler: dict[str, Any]
    average: dict[str, Any] | None
    best: dict[str, Any] | None
    curve: list[dict[str, float]]


def check_resumable(
    state: TrainingState,
    begun: TrainingState,
    optimizer: torch.optim.Optimizer,
    *,
    kept: bool,
    figures: Sequence[str],
    epochs: int,
) -> None:
    """Refuses a state that a training can't have left.

    Args:
        state: As it was read; the model's part is checked as it is loaded.
        begun: As the training begins.
        optimizer: The same.
        kept: Whether the training keeps the best epoch.
        figures: What each epoch is measured by.
        epochs: Of the whole training.

    Raises:
        DataError: Something is missing, too much, or of another shape.
    """
    if type(state.epoch) is not int or not 0 < state.epoch <= epochs:
        raise DataError(f"epoch is {state.epoch!r}, of a training of {epochs}")
    _check_curve(state.curve, state.epoch, figures)
    _check_tensors(state.average, begun.average, "average")
    _check_tensors(state.best, begun.model if kept else None, "best")
    _check_like(begun.scheduler, state.scheduler, "scheduler")
    _check_like(begun.scaler, state.scaler, "scaler")
    _check_like(
        {**begun.optimizer, "state": {}},
        {**_mapping(state.optimizer, "optimizer"), "state": {}},
        "optimizer",
    )
    _check_moments(state, optimizer)


def _check_moments(state: TrainingState, optimizer: torch.optim.Optimizer) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    known = _OF_A_PARAMETER[type(optimizer)]
    for number, moments in _mapping(state.optimizer.get("state"), "optimizer.state").items():
        place = f"optimizer.state.{number}"
        if type(number) is not int or not 0 <= number < len(parameters):
            raise DataError(f"{place} is of no parameter")
        if _mapping(moments, place).keys() != known:
            raise DataError(f"{place} must hold {sorted(known)}")
        for name, moment in moments.items():
            parameter = parameters[number]
            shape = torch.Size() if name == "step" else parameter.shape
            fits = isinstance(moment, Tensor) and moment.shape == shape
            if not fits or not moment.is_floating_point() or moment.layout is not torch.strided:
                raise DataError(f"{place}.{name} is not of its parameter's shape")


def _check_like(expected: Any, found: Any, place: str) -> None:
    """Both have the same structure, and numbers where numbers are."""
    if isinstance(expected, dict):
        if _mapping(found, place).keys() != expected.keys():
            raise DataError(f"{place} must hold {sorted(map(str, expected))}")
        for key, value in expected.items():
            _check_like(value, found[key], f"{place}.{key}")
    elif isinstance(expected, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(expected):
            raise DataError(f"{place} must have {len(expected)} entries")
        for index, value in enumerate(expected):
            _check_like(value, found[index], f"{place}.{index}")
    elif isinstance(expected, (int, float)) and not isinstance(expected, bool):
        number = isinstance(found, (int, float)) and not isinstance(found, bool)
        if not number or not math.isfinite(found):
            raise DataError(f"{place} must be a number, got {found!r}")
    elif type(found) is not type(expected):
        raise DataError(f"{place} must be like {expected!r}, got {type(found).__name__}")


def _check_curve(curve: Any, epochs: int, figures: Sequence[str]) -> None:
    if not isinstance(curve, list) or len(curve) != epochs:
        raise DataError("curve must have an entry for each epoch")
    wanted = {EPOCH, LOSS, RATE, *figures}
    for place, point in enumerate(curve):
        values = _mapping(point, f"curve.{place}")
        if values.keys() != wanted or any(type(v) not in (int, float) for v in values.values()):
            raise DataError(f"curve.{place} must hold numbers for {sorted(wanted)}")


def _check_tensors(found: Any, expected: Mapping[str, Tensor] | None, place: str) -> None:
    """Both are tensors of the same names, shapes and types, or both are nothing."""
    if expected is None:
        if found is not None:
            raise DataError(f"{place} is too much")
        return
    if _mapping(found, place).keys() != expected.keys():
        raise DataError(f"{place} is of another model")
    for name, tensor in expected.items():
        other = found[name]
        if not isinstance(other, Tensor) or (other.shape, other.dtype, other.layout) != (
            tensor.shape,
            tensor.dtype,
            tensor.layout,
        ):
            raise DataError(f"{place}.{name} is not as the model's")


def _mapping(value: Any, place: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place} must be a mapping")
    return value
