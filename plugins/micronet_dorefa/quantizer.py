"""DoReFa-Net quantization (Zhou et al. 2016, "DoReFa-Net: Training Low Bitwidth Convolutional
Neural Networks with Low Bitwidth Gradients"); weights and activations, not gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from micronet.errors import OptionError
from micronet.options import option
from micronet.techniques import Quantizer, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet.quantization import FakeQuantizer

_FLOAT_BITS, _MOST_BITS = 32, 16


@attrs.frozen(kw_only=True)
class DoReFa(Quantizer):
    """Weights and activations on uniform grids that need no observed ranges.

    Weights: w_q = 2 round(u n) / n - 1 with u = tanh(w) / (2 max|tanh(w)|) + 1/2 and
    n = 2^bits - 1. Activations, at the input of each quantized layer: x_q = round(clamp(0.1 x, 0,
    1) n) / n. Rounding is half to even and lets the gradient straight through. The first weighted
    layer stays in float.
    """

    needs_data: ClassVar[bool] = False

    w_bits: int = option(8, ge=1, le=32, doc="Width of the weights: 2 to 16, or 32 for float.")
    a_bits: int = option(8, ge=1, le=32, doc="Width of the activations: 2 to 16, or 32 for float.")

    def __attrs_post_init__(self) -> None:
        for name in ("w_bits", "a_bits"):
            _check_bits(name, getattr(self, name))

    @property
    def scheme(self) -> Scheme:
        return Scheme(
            self.w_bits, self.a_bits, w_symmetric=False, a_symmetric=False, per_channel=False
        )

    def prepare(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        from micronet.quantization import quantize_weighted_layers

        return quantize_weighted_layers(
            model,
            example_inputs,
            weight=self.weight_quantizer,
            activation=self.activation_quantizer,
            skip_first=True,
        )

    def weight_quantizer(self, _layer: nn.Module) -> FakeQuantizer | None:
        """For a layer's weight; `None` leaves it in float."""
        from micronet_dorefa.fake_quantizers import DoReFaWeight

        return DoReFaWeight(self.w_bits) if self.w_bits < _FLOAT_BITS else None

    def activation_quantizer(self) -> FakeQuantizer | None:
        """For a layer's input; `None` leaves it in float."""
        from micronet_dorefa.fake_quantizers import DoReFaActivation

        return DoReFaActivation(self.a_bits) if self.a_bits < _FLOAT_BITS else None


def _check_bits(name: str, bits: Any) -> None:
    if bits == 1:
        raise OptionError(
            f"{name} must be 2 to 16, or 32 for float, got 1. For binary and ternary networks use "
            f"the quantizer 'wbwtab'.",
            name,
        )
    if _MOST_BITS < bits < _FLOAT_BITS:
        raise OptionError(f"{name} must be 2 to 16, or 32 for float, got {bits}.", name)
