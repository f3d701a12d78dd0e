"""What every pruner shares: sparsity gradients, and plans that repeat a pruning elsewhere."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from micronet.errors import PruningError


@attrs.frozen
class Kept:
    """The channels of one layer that stay, as indices into the unpruned layer.

    Args:
        outputs: Of its output channels (features, for a batch norm), ascending.
        inputs: Of its input channels; for group convolutions, of each group's own.
        groups: The layer's groups afterwards; 1 where it has none.
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    groups: int = 1


@attrs.frozen
class PruningPlan:
    """What is kept in each layer that a pruning touched, by the layer's name."""

    layers: Mapping[str, Kept]

    def to_json(self) -> str:
        return json.dumps({name: attrs.asdict(kept) for name, kept in self.layers.items()})

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        return cls(
            {
                name: Kept(tuple(kept["outputs"]), tuple(kept["inputs"]), kept["groups"])
                for name, kept in json.loads(text).items()
            }
        )


def add_l1_gradient(model: nn.Module, strength: float) -> None:
    """Adds strength * sign(gamma) to the gradient of every batch norm's gamma."""
    gammas = [
        module.weight
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.weight is not None
    ]
    trained = [gamma for gamma in gammas if gamma.grad is not None]
    if not trained:
        return
    torch._foreach_add_(  # torch's own optimizers are built on it
        [gamma.grad for gamma in trained],  # type: ignore[misc]
        [gamma.detach().sign() for gamma in trained],
        alpha=strength,
    )


@torch.no_grad()
def apply_plan(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """A copy of an unpruned model, made smaller as the plan says, with the kept weights.

    Raises:
        PruningError: The plan is for another model.
    """
    pruned = copy.deepcopy(model)
    for name, kept in plan.layers.items():
        try:
            _shrink(pruned.get_submodule(name), kept)
        except (AttributeError, IndexError, RuntimeError, PruningError) as error:
            raise PruningError(f"The plan does not fit the model at {name!r}: {error}") from error
    return pruned


def _shrink(layer: nn.Module, kept: Kept) -> None:
    outputs, inputs = torch.tensor(kept.outputs), torch.tensor(kept.inputs)
    if isinstance(layer, _BatchNorm):
        layer.num_features = len(outputs)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(layer, name, outputs, 0)
        return
    out_axis, in_axis = (1, 0) if isinstance(layer, _ConvTransposeNd) else (0, 1)
    _select(layer, "weight", outputs, out_axis)
    _select(layer, "weight", inputs, in_axis)
    _select(layer, "bias", outputs, 0)
    if isinstance(layer, _ConvNd):
        layer.groups = kept.groups
        layer.out_channels = len(outputs)
        layer.in_channels = len(inputs) * kept.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = len(outputs), len(inputs)
    else:
        raise PruningError(f"a {type(layer).__name__} has no channels")


def _select(layer: nn.Module, name: str, kept: Tensor, axis: int) -> None:
    tensor: Any = getattr(layer, name, None)
    if tensor is None:
        return
    chosen = tensor.detach().index_select(axis, kept.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        chosen = nn.Parameter(chosen, requires_grad=tensor.requires_grad)
    setattr(layer, name, chosen)
