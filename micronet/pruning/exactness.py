"""A pruned model computes what the whole one does without the channels that went."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from micronet.errors import PruningError
from micronet.graph.copying import copy_of
from micronet.graph.guard import ChangedFunctionError, check_same_function
from micronet.pruning.plan import Kept, PruningPlan, is_count
from micronet.pruning.weighted import sizes_of

_ACROSS_CHANNELS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def check_exact(
    model: nn.Module,
    pruned: nn.Module,
    plan: PruningPlan,
    example_inputs: tuple[Any, ...],
    standardised: Collection[str] = (),
) -> None:
    """Compares a pruned model with the whole one whose dropped channels are silent.

    Where norms across channels lose some of theirs, or filters that are standardised some of their
    inputs, the two must differ, and nothing is compared.

    Args:
        model: The whole one.
        pruned: What the plan made of it.
        plan: What it kept.
        example_inputs: To compare on.
        standardised: Names of layers that compute each filter from its weights for all inputs.

    Raises:
        PruningError: They differ.
    """
    for name, kept in plan.layers.items():
        owner = _owner(model, name)
        fewer = name in standardised and len(kept.inputs) < sizes_of(owner)["inputs"]
        if fewer or isinstance(owner, _ACROSS_CHANNELS):
            return
    try:
        check_same_function(silenced(model, plan), pruned, example_inputs, what="Pruning")
    except ChangedFunctionError as error:
        raise PruningError(
            f"Removing channels changes more than them: where the whole "
            f"{type(model).__name__} without them gives one thing, the smaller one gives another, "
            f"off by {error.difference:.2g} of the largest. Please report this model."
        ) from error


@torch.no_grad()
def silenced(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """A copy of the whole model with zeros for what a plan drops, and for what reads it."""
    silent = copy_of(model)
    for name, kept in plan.layers.items():
        path, _, attribute = name.rpartition(".")
        if is_count(silent.get_submodule(path), attribute):
            continue
        owner = _owner(silent, name)
        parameter = getattr(owner, name.rpartition(".")[2], None)
        if isinstance(parameter, Tensor):
            _fill(parameter, kept.axis, kept.outputs)
        else:
            _silence(owner, kept)
    return silent


def _owner(model: nn.Module, name: str) -> nn.Module:
    """The layer of a name, or the module that has a parameter of that name."""
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    own = getattr(owner, attribute, None)
    return own if isinstance(own, nn.Module) else owner


def _silence(layer: nn.Module, kept: Kept) -> None:
    weight: Any = getattr(layer, "weight", None)
    outputs, inputs = (1, 0) if isinstance(layer, _ConvTransposeNd) else (0, 1)
    if weight is not None:
        _fill(weight, outputs, kept.outputs)
    if isinstance(getattr(layer, "bias", None), Tensor):
        _fill(layer.bias, 0, kept.outputs)
    reads = isinstance(layer, nn.Linear) or (isinstance(layer, _ConvNd) and layer.groups == 1)
    if reads and kept.inputs:
        _fill(weight, inputs, kept.inputs)


def _fill(tensor: Any, axis: int, kept: tuple[int, ...]) -> None:
    dropped = sorted(set(range(tensor.shape[axis])) - set(kept))
    tensor.index_fill_(axis, torch.tensor(dropped, dtype=torch.int64, device=tensor.device), 0)
