"""What pruning brings down, measured of a model and estimated without removing anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from micronet.pruning.channels import Channels
from micronet.pruning.follower import WEIGHTED, Key, Side

Widths: TypeAlias = Mapping[Key, float]
"""How many channels each side of each layer has."""


@attrs.frozen
class Cost:
    """What a budget is about. A latency on an engine would be another than those below.

    Args:
        name: As messages say it.
        measure: Of a model on example inputs, in any unit.
        estimate: In the same unit, what the layers cost that channels lie in, if they had the given
            widths. It may leave out what it can't foresee, such as products in an attention: what a
            pruned model costs is measured, and more or less is removed by what was missed.
    """

    name: str
    measure: Callable[[nn.Module, tuple[Tensor, ...]], float]
    estimate: Callable[[Channels, Widths], float]


def parameters(channels: Channels, widths: Widths) -> float:
    """Numbers in the parameters of the layers that channels lie in."""
    total = 0.0
    for side in channels.sides.values():
        if isinstance(side.layer, WEIGHTED):
            if side.role == "outputs":
                total += widths[side.key] if side.layer.bias is not None else 0
                total += _weights(channels, side, widths)
        else:
            total += widths[side.key] / side.size * _numbers(side.layer)
    return total


def operations(channels: Channels, widths: Widths) -> float:
    """Multiply-accumulates of convolutions and linear layers for one image."""
    return sum(
        _weights(channels, side, widths) * channels.positions[side.names[0]]
        for side in channels.sides.values()
        if side.role == "outputs" and side.names[0] in channels.positions
    )


def _weights(channels: Channels, outputs: Side, widths: Widths) -> float:
    """The numbers in a convolution's or linear layer's weight."""
    out, into = widths[outputs.key], widths[outputs.names[0], "inputs"]
    layer = outputs.layer
    if not isinstance(layer, _ConvNd):
        return out * into
    depthwise = outputs.names[0] in channels.depthwise
    return out * math.prod(layer.kernel_size) * (1 if depthwise else into / layer.groups)


def _numbers(layer: nn.Module | Tensor) -> int:
    own = layer.parameters(recurse=False) if isinstance(layer, nn.Module) else [layer]
    return sum(tensor.numel() for tensor in own if isinstance(tensor, nn.Parameter))
