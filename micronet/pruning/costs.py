"""What a model would cost with some of its channels removed, counted without removing them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd

from micronet.pruning.channels import Channels
from micronet.pruning.follower import WEIGHTED, Side

Target = Literal["channels", "params", "flops"]


def removed_cost(channels: Channels, kept: NDArray[np.bool_], target: Target) -> float:
    """How many parameters, or multiply-accumulates for one image, go with the sets not kept."""
    everything = np.ones_like(kept)
    if target == "flops":
        return _operations(channels, everything) - _operations(channels, kept)
    return _parameters(channels, everything) - _parameters(channels, kept)


def _parameters(channels: Channels, kept: NDArray[np.bool_]) -> float:
    """Of the layers that channels lie in."""
    total = 0.0
    for side in channels.sides.values():
        left = float(side.of(kept[channels.set_of]).sum())
        if isinstance(side.layer, WEIGHTED):
            if side.role == "outputs":
                total += left if side.layer.bias is not None else 0
                total += _weights(channels, side, kept)
        else:
            total += left / side.size * _numbers(side.layer)
    return total


def _operations(channels: Channels, kept: NDArray[np.bool_]) -> float:
    return sum(
        _weights(channels, side, kept) * channels.positions[side.names[0]]
        for side in channels.sides.values()
        if side.role == "outputs" and side.names[0] in channels.positions
    )


def _weights(channels: Channels, outputs: Side, kept: NDArray[np.bool_]) -> float:
    """The numbers in a convolution's or linear layer's weight."""
    inputs = channels.sides[outputs.names[0], "inputs"]
    out, into = (float(side.of(kept[channels.set_of]).sum()) for side in (outputs, inputs))
    layer = outputs.layer
    if not isinstance(layer, _ConvNd):
        return out * into
    depthwise = outputs.names[0] in channels.depthwise
    kernel = float(np.prod(layer.kernel_size))
    return out * kernel * (1 if depthwise else into / layer.groups)


def _numbers(layer: nn.Module | nn.Parameter) -> int:
    own = layer.parameters(recurse=False) if isinstance(layer, nn.Module) else [layer]
    return sum(parameter.numel() for parameter in own)
