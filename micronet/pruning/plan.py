"""Plans: what a pruning kept, so that it can be repeated on another model of the same kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from micronet.errors import DataError, PruningError
from micronet.graph.copying import copy_of
from micronet.plain import from_json


@attrs.frozen
class Kept:
    """The channels of one layer that stay, as indices into the unpruned layer.

    The order is that of the smaller layer, which after a channel shuffle may be another than the
    ascending one.

    Args:
        outputs: Of its output channels (features, for a normalization), or, for a parameter or
            buffer that no layer holds, along `axis`; for an attribute that counts channels, as
            many as it counts.
        inputs: Of its input channels; empty for layers that have none of their own.
        groups: The layer's groups afterwards; 1 where it has none.
        axis: The dimension that shrinks, for a parameter that no layer holds.
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    groups: int = 1
    axis: int = 0


@attrs.frozen
class PruningPlan:
    """What is kept in each layer that a pruning touched, by the layer's name.

    Parameters that no layer holds, and attributes that count channels, are named after their
    module, as in "blocks.0.head_dim"; an integer in a list as in "mix.splits[1]".
    """

    layers: Mapping[str, Kept]

    def to_json(self) -> str:
        return json.dumps({name: attrs.asdict(kept) for name, kept in self.layers.items()})

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Raises DataError where it is no plan."""
        try:
            return cls(from_json(text, dict[str, Kept]))
        except DataError as error:
            raise DataError(f"A pruning plan is damaged: {error}.") from error


@torch.no_grad()
def apply_plan(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """A copy of an unpruned model, made smaller as the plan says, with the kept weights.

    Raises:
        PruningError: The plan is for another model.
    """
    pruned = copy_of(model)
    done: dict[int, Any] = {}
    for name, kept in plan.layers.items():
        try:
            path, _, attribute = name.rpartition(".")
            owner = pruned.get_submodule(path)
            if isinstance(getattr(owner, attribute, None), Tensor):
                _select(owner, attribute, torch.tensor(kept.outputs), kept.axis, done)
            elif is_count(owner, attribute):
                _set_count(owner, attribute, len(kept.outputs))
            elif id(layer := pruned.get_submodule(name)) not in done:
                done[id(layer)] = layer  # a layer may have several names
                _shrink(layer, kept, done)
        except Exception as error:  # whatever a damaged plan asks for
            raise PruningError(f"The plan does not fit the model at {name!r}: {error}") from error
    return pruned


def is_count(owner: nn.Module, attribute: str) -> bool:
    """Whether an attribute, or an entry of it as in "splits[1]", is an integer."""
    name, _, index = attribute.rstrip("]").partition("[")
    value = getattr(owner, name, None)
    if index:
        value = value[int(index)] if isinstance(value, (list, tuple)) else None
    return type(value) is int


def _set_count(owner: nn.Module, attribute: str, count: int) -> None:
    name, _, index = attribute.rstrip("]").partition("[")
    value = getattr(owner, name)
    if index:
        numbers = list(value)
        numbers[int(index)] = count
        count = type(value)(numbers)
    setattr(owner, name, count)


def _shrink(layer: nn.Module, kept: Kept, done: dict[int, Any]) -> None:
    outputs, inputs = torch.tensor(kept.outputs), torch.tensor(kept.inputs, dtype=torch.int64)
    if isinstance(layer, _ConvNd):
        _shrink_convolution(layer, outputs, inputs, kept.groups, done)
    elif isinstance(layer, nn.Linear):
        _select(layer, "weight", outputs, 0, done, inputs)
        _select(layer, "bias", outputs, 0, done)
        layer.out_features, layer.in_features = len(outputs), len(inputs)
    elif isinstance(layer, (_NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.PReLU)):
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(layer, name, outputs, 0, done)
        name, size = _size_of(layer)
        setattr(layer, name, (len(outputs),) if isinstance(size, tuple) else len(outputs))
    else:
        raise PruningError(f"a {type(layer).__name__} has no channels")


def _shrink_convolution(
    layer: _ConvNd, outputs: Tensor, inputs: Tensor, groups: int, done: dict[int, Any]
) -> None:
    """Each group of the smaller layer reads its own inputs, so it has columns of its own."""
    for channels, kept in ((layer.in_channels, inputs), (layer.out_channels, outputs)):
        if int(kept.max()) >= channels:
            raise IndexError(f"it has no channel {int(kept.max())}")
    transposed = isinstance(layer, _ConvTransposeNd)
    weight = layer.weight.detach()
    rows, columns = (inputs, outputs) if transposed else (outputs, inputs)
    # A weight has the columns of one group; those of another have the same indices.
    blocks = [
        weight.index_select(0, own).index_select(1, others % weight.shape[1])
        for own, others in zip(rows.chunk(groups), columns.chunk(groups), strict=True)
    ]
    _replace(layer, "weight", torch.cat(blocks), done)
    _select(layer, "bias", outputs, 0, done)
    layer.groups, layer.out_channels, layer.in_channels = groups, len(outputs), len(inputs)


def _size_of(layer: nn.Module) -> tuple[str, Any]:
    names = ("num_features", "num_channels", "normalized_shape", "num_parameters")
    return next((name, getattr(layer, name)) for name in names if hasattr(layer, name))


def _select(
    layer: nn.Module,
    name: str,
    kept: Tensor,
    axis: int,
    done: dict[int, Any],
    inputs: Tensor | None = None,
) -> None:
    tensor: Any = getattr(layer, name, None)
    if tensor is None:
        return
    chosen = tensor.detach().index_select(axis, kept.to(tensor.device))
    if inputs is not None:
        chosen = chosen.index_select(1, inputs.to(tensor.device))
    _replace(layer, name, chosen, done)


def _replace(layer: nn.Module, name: str, chosen: Tensor, done: dict[int, Any]) -> None:
    """Puts a tensor in the place of another, in every layer that shares it."""
    old: Any = getattr(layer, name)
    if isinstance(old, nn.Parameter):
        if id(old) not in done:
            # With the old one, whose id no other tensor may get.
            done[id(old)] = (nn.Parameter(chosen, requires_grad=old.requires_grad), old)
        chosen = done[id(old)][0]
    setattr(layer, name, chosen)
