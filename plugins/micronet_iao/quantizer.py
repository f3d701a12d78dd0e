"""Integer-arithmetic-only quantization (Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet import registry
from micronet.options import option
from micronet.techniques import Quantizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet.quantization import FakeQuantizer


@attrs.frozen(kw_only=True)
class IAO(Quantizer):
    """Weights and activations on affine integer grids, rounded half to even.

    Symmetric: scale = max |x| / (2^(bits-1) - 1), zero point 0; weights use codes
    +-(2^(bits-1) - 1), activations also the one below. Asymmetric: scale and zero point from both
    ends of the range; weights use codes 0 to 2^bits - 2, activations 0 to 2^bits - 1. Gradients
    pass straight through where the value lies in the range.
    """

    w_bits: int = option(8, ge=2, le=16, doc="Width of the weights' codes.")
    a_bits: int = option(8, ge=2, le=16, doc="Width of the activations' codes.")
    w_symmetric: bool = option(default=True, doc="Whether the weights' zero point is 0.")
    a_symmetric: bool = option(default=False, doc="Whether the activations' zero point is 0.")
    per_channel: bool = option(
        default=True, doc="Whether each output channel of a weight has a scale of its own."
    )
    w_observer: str = option("minmax", doc="Registered observer of the weights' ranges.")
    a_observer: str = option(
        "moving_average", doc="Registered observer of the activations' ranges."
    )

    def prepare(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        from micronet.quantization import place_quantizers

        return place_quantizers(
            model,
            example_inputs,
            weight=self._weight_quantizer,
            activation=self._activation_quantizer,
        )

    def _weight_quantizer(self, layer: nn.Module) -> FakeQuantizer:
        from micronet.quantization import AffineFakeQuantizer, Grid, output_axis

        axis = output_axis(layer) if self.per_channel else None
        grid = Grid(self.w_bits, self.w_symmetric, narrow=True)
        observer = registry.create("observer", self.w_observer).build(axis, grid=grid)
        quantizer = AffineFakeQuantizer(grid, observer, axis=axis, whole=True)
        quantizer.observe(layer.weight.detach())  # type: ignore[operator]
        return quantizer

    def _activation_quantizer(self) -> FakeQuantizer:
        from micronet.quantization import AffineFakeQuantizer, Grid

        grid = Grid(self.a_bits, self.a_symmetric)
        observer = registry.create("observer", self.a_observer).build(grid=grid)
        return AffineFakeQuantizer(grid, observer)
