"""Learned step size quantization (Esser et al. 2020, "Learned Step Size Quantization")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.options import option
from micronet.techniques import Quantizer, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet.quantization import FakeQuantizer


@attrs.frozen(kw_only=True)
class LSQ(Quantizer):
    """Weights and activations on grids whose step sizes are trained like weights.

    Weights use codes +-(2^(bits-1) - 1). Activations that the first batch knows no negative of use
    0 to 2^bits - 1, others both signs; zero is code 0.
    """

    w_bits: int = option(8, ge=2, le=8, doc="Width of the weights' codes.")
    a_bits: int = option(8, ge=2, le=8, doc="Width of the activations' codes.")

    @property
    def scheme(self) -> Scheme:
        return Scheme(self.w_bits, self.a_bits, per_channel=False)

    def prepare(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        from micronet.quantization import place_quantizers

        return place_quantizers(
            model,
            example_inputs,
            weight=self.weight_quantizer,
            activation=self.activation_quantizer,
        )

    def weight_quantizer(self, layer: nn.Module) -> FakeQuantizer:
        """For a layer's weight; its step begins at what the weight suggests."""
        from micronet.quantization import Grid, weight_of
        from micronet_lsq.step import LearnedStep

        quantizer = LearnedStep(Grid(self.w_bits, symmetric=True, narrow=True))
        quantizer.observe(weight_of(layer).detach())
        return quantizer

    def activation_quantizer(self) -> FakeQuantizer:
        """For an activation; its step begins at what the first batch suggests."""
        from micronet.quantization import Grid
        from micronet_lsq.step import LearnedStep

        return LearnedStep(Grid(self.a_bits, symmetric=True), Grid(self.a_bits, symmetric=False))
