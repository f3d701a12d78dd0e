"""8-bit layers at the ends of a binary network."""

from __future__ import annotations

from torch import nn

from micronet import registry
from micronet.quantization import (
    AffineFakeQuantizer,
    Grid,
    output_axis,
    quantize_layer,
    weight_of,
)

_WEIGHT = Grid(8, symmetric=True, narrow=True)
_INPUT = Grid(8, symmetric=False, narrow=True)
"""Narrow, since the last layer may read signs: with 255 codes from -1 to 1, both ends and 0 are
codes; with 256 the ends would lie in the middle between two."""


def quantize_to_8_bits(layer: nn.Module) -> None:
    """Turns a layer into its quantized twin with 8-bit weight and input, in place."""
    axis = output_axis(layer)
    of_weight = registry.create("observer", "minmax").build(axis, grid=_WEIGHT)
    weight = AffineFakeQuantizer(_WEIGHT, of_weight, axis=axis, whole=True)
    weight.observe(weight_of(layer).detach())
    of_input = registry.create("observer", "moving_average").build(grid=_INPUT)
    quantize_layer(layer, weight, AffineFakeQuantizer(_INPUT, of_input))
