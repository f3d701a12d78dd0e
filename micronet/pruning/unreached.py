"""Layers that the example inputs don't reach: what may feed them must stay.

Experts that are chosen by the input, parts of another method, heads of a mode that can't run: such
a layer is coupled with nothing, so the pruned model would fail where it is reached. Every
activation that is as wide as such a layer's inputs or outputs may be what it is fed, or what takes
the place of what it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from micronet.pruning.follower import Follower, Trace, key_of
from micronet.pruning.labels import varying
from micronet.pruning.weighted import sizes_of

_UNREACHED = "the example inputs don't reach"


def unreached(model: nn.Module, found: Trace) -> dict[str, nn.Module]:
    """The weighted layers and normalizations that no forward pass has met, by name."""
    reached: set[str] = set()
    for side in found.sides.values():
        layer = isinstance(side.layer, nn.Module)
        reached.update(name if layer else name.rpartition(".")[0] for name in side.names)
    return {
        name: module
        for name, module in model.named_modules()
        if name not in reached and widths_of(module)
    }


def widths_of(module: nn.Module) -> set[int]:
    """How many channels a layer takes and gives; 1 stands for no particular number."""
    weight = key_of(module)
    if isinstance(weight, Tensor) and weight.dim() == 1:
        return {len(weight)} - {1}
    return set(sizes_of(module).values()) - {1}


def watch(follower: Follower, layers: Mapping[str, nn.Module]) -> Callable[[Tensor], None]:
    """What locks the activations that may feed layers, where a follower labels them."""
    names: dict[int, str] = {}
    for name, layer in layers.items():
        for role, size in sizes_of(layer).items():
            follower.lock_side(follower.side(key_of(layer), role, size), f"{_UNREACHED} it")
        for width in widths_of(layer):
            names.setdefault(width, name)

    def lock_if_as_wide(labels: Tensor) -> None:
        shape = labels.shape
        along = varying(labels)
        widths = {shape[axis] for axis in along}
        if 1 in along:
            widths.add(torch.Size(shape[1:]).numel())  # flattened
        for width in widths & names.keys():
            follower.lock_labels(labels, f"it may feed {names[width]!r}, which {_UNREACHED}")

    return lock_if_as_wide
