"""What a model's forward is called with, out of what people keep in batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from micronet.errors import QuantizationError, listed

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def arguments(model: nn.Module, batch: Any) -> Call:
    """The arguments of `model(...)` for a batch, on the model's device.

    A tensor is the one input. A dictionary holds inputs by the names that forward gives them. A
    tuple or list with as many parts as forward requires holds the inputs in order. Parts beyond
    all that forward takes are targets, as a data loader gives them, and left out; so is whatever
    follows a dictionary, or a tuple of inputs for a forward with several. Arrays become tensors,
    floating-point ones in the model's own type.

    >>> arguments(nn.Linear(2, 1), [torch.ones(4, 2), torch.tensor([0, 1, 1, 0])])[0][0].shape
    torch.Size([4, 2])

    Args:
        model: Whose forward has a signature; a compiled or distributed one is looked through.
        batch: Tensors or NumPy arrays, batch first, alone or in a tuple, list or dictionary.

    Raises:
        QuantizationError: The batch fits forward in no way, or in more than one.
    """
    own = next((p for p in model.parameters() if p.is_floating_point()), None)
    args, kwargs = _matched(_Forward(model), batch)

    def ready(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
            if own is not None and value.is_floating_point():
                value = value.to(own.dtype)
        return value.to(own.device) if isinstance(value, Tensor) and own is not None else value

    found: Call = tree_map(ready, (args, kwargs))
    return found


def positional(model: nn.Module, batch: Any) -> tuple[Any, ...]:
    """The same as positional arguments alone; one left out before another has its default.

    Raises:
        QuantizationError: As `arguments`; or forward takes some by their names only.
    """
    args, kwargs = arguments(model, batch)
    bound = _Forward(model).signature.bind(*args, **kwargs)
    if bound.kwargs:  # those that come after a gap
        bound.apply_defaults()
    if bound.kwargs:
        raise QuantizationError(f"forward takes {listed(bound.kwargs)} by name only.")
    return bound.args


def first_rows(inputs: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Positional arguments with the first `count` images only, of each tensor that holds all."""
    size = batch_size(inputs)
    rows: tuple[Any, ...] = tree_map(lambda v: v[:count] if _rows(v) == size else v, inputs)
    return rows


def joined(calls: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Positional arguments of several calls as those of one, tensors joined along the batch.

    Arguments that are no tensors, or have not a row for each image, are those of the first call.
    """
    sizes = [batch_size(inputs) for inputs in calls]

    def together(*values: Any) -> Any:
        return torch.cat(values) if [_rows(value) for value in values] == sizes else values[0]

    first, *others = calls
    whole: tuple[Any, ...] = tree_map(together, first, *others)
    return whole


def batch_size(inputs: tuple[Any, ...]) -> int:
    """Images that positional arguments hold: the rows of the first tensor."""
    return next((rows for rows in map(_rows, tree_leaves(inputs)) if rows is not None), 0)


def check_batches(batches: Any) -> None:
    """Refuses one batch in the place of an iterable of them.

    Raises:
        QuantizationError: It is a tensor, an array or a dictionary.
    """
    if isinstance(batches, (Tensor, np.ndarray, Mapping)):
        raise QuantizationError(
            f"batches must be an iterable of batches, got a {type(batches).__name__}; write "
            f"[batch] for a single one."
        )


class _Forward:
    """What a model's forward takes."""

    def __init__(self, model: Any) -> None:
        while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        model = getattr(model, "_orig_mod", model)  # of a compiled one
        self.signature = inspect.signature(model.forward)
        parameters = self.signature.parameters.values()
        kinds = {parameter.kind for parameter in parameters}
        self.any_number = inspect.Parameter.VAR_POSITIONAL in kinds
        self.any_name = inspect.Parameter.VAR_KEYWORD in kinds
        self.takes = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
        self.requires = [
            parameter.name
            for parameter in parameters
            if parameter.kind in _POSITIONAL and parameter.default is inspect.Parameter.empty
        ]

    def refusal(self, batch: Sequence[Any]) -> QuantizationError:
        parts = listed(map(_described, batch))
        optional = [name for name in self.takes if name not in self.requires]
        takes = f"forward takes {listed(self.requires)}"
        takes += f" and, if given, {listed(optional)}" if optional else ""
        return QuantizationError(
            f"A batch has the parts ({parts}), and {takes}: it is not clear which are inputs. Give "
            f"each batch as a dictionary of inputs, such as {{{self._first!r}: tensor}}."
        )

    @property
    def _first(self) -> str:
        return next(iter(self.takes), "x")


def _matched(forward: _Forward, batch: Any) -> Call:
    if _is_tensor(batch):
        batch = (batch,)
    if isinstance(batch, Mapping):
        return (), _named(forward, batch)
    if not isinstance(batch, (tuple, list)) or not batch:
        raise QuantizationError(
            f"A batch must be a tensor, an array, or a tuple, list or dictionary of them, got "
            f"{_described(batch)}."
        )
    first, *others = batch
    if isinstance(first, Mapping) and len(forward.requires) != len(batch):
        return (), _named(forward, first)
    several = isinstance(first, (tuple, list)) and len(forward.requires) > 1
    if several and len(first) == len(forward.requires) and len(others) <= 1:
        return tuple(first), {}
    alone = not others and len(forward.requires) <= 1
    if forward.any_number or alone or len(batch) == len(forward.requires):
        return tuple(batch), {}
    count = len(forward.takes)
    if count < len(batch) and count in (1, len(forward.requires)):
        inputs, targets = batch[:count], batch[count:]
        kinds = [_kind(value) for value in inputs]
        if all(map(_is_tensor, inputs)) and not any(_kind(value) in kinds for value in targets):
            return tuple(inputs), {}
    raise forward.refusal(batch)


def _named(forward: _Forward, batch: Mapping[Any, Any]) -> dict[str, Any]:
    names = forward.signature.parameters
    unknown = [] if forward.any_name else [name for name in batch if name not in names]
    missing = [name for name in forward.requires if name not in batch]
    if unknown or missing:
        wrong = f"{unknown[0]!r}, which it does not take" if unknown else f"no {missing[0]!r}"
        raise QuantizationError(
            f"forward takes {listed(forward.takes)}, and a batch has {wrong}. Name a batch's "
            f"inputs as forward does, and leave targets out."
        )
    return dict(batch)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _kind(value: Any) -> tuple[Any, ...]:
    """Shape and type: targets that are like inputs in both may be inputs."""
    return (tuple(value.shape), str(value.dtype)) if _is_tensor(value) else (type(value),)


def _described(value: Any) -> str:
    if _is_tensor(value):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"


def _rows(value: Any) -> int | None:
    return len(value) if isinstance(value, Tensor) and value.dim() else None
