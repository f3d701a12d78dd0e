"""Binary and ternary networks (Rastegari et al. 2016, "XNOR-Net: ImageNet Classification Using
Binary Convolutional Neural Networks"; Li et al. 2016, "Ternary Weight Networks").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from micronet.options import option
from micronet.techniques import Quantizer, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet.quantization import FakeQuantizer


@attrs.frozen(kw_only=True)
class WbWtAb(Quantizer):
    """Weights of one or three values, activations of two.

    Binary weights: alpha sign(w), alpha = mean |w| of the output channel, after each channel's
    weights have been centred over their inputs and clamped to [-1, 1]. Ternary weights: alpha
    times -1, 0 or 1, the threshold 0.7 mean |w| of the channel, alpha the mean of |w| above it.
    Binary activations: sign(x) in the place of ReLU, the gradient passing where |x| < 1.
    sign(0) = 1 throughout. The first and the last weighted layer stay in float, or become 8-bit
    ones.
    """

    weights: Literal["binary", "ternary", "float"] = option(
        "binary", doc="Values that a weight may take."
    )
    activations: Literal["binary", "float"] = option(
        "binary", doc="Whether the ReLUs between quantized layers become signs."
    )
    first_and_last: Literal["float", "int8", "quantized"] = option(
        "float",
        doc="The first and the last weighted layer: in float; 8-bit integers, the weights with one "
        "scale for each output channel, their inputs with a zero point, whose range needs data; or "
        "quantized as the others.",
    )

    @property
    def needs_data(self) -> bool:  # type: ignore[override]
        return self.first_and_last == "int8"

    @property
    def scheme(self) -> Scheme | None:
        """That of the 8-bit layers; engines run signs as integers of any scheme."""
        return Scheme() if self.first_and_last == "int8" else None

    def prepare(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        from micronet.graph.copying import copy_of
        from micronet.quantization import quantize_weighted_layers, weighted_layers
        from micronet_wbwtab.ends import quantize_to_8_bits
        from micronet_wbwtab.relus import replace_relus

        skip = self.first_and_last != "quantized"
        signed = copy_of(model)
        if self.activations == "binary":
            signed = replace_relus(signed, example_inputs, last=not skip)
        prepared = quantize_weighted_layers(
            signed,
            example_inputs,
            weight=self.weight_quantizer,
            skip_first=skip,
            skip_last=skip,
        )
        if self.first_and_last == "int8":
            first, *_, last = weighted_layers(signed, example_inputs)
            for name in (first, last):
                quantize_to_8_bits(prepared.get_submodule(name))
        return prepared

    def weight_quantizer(self, layer: nn.Module) -> FakeQuantizer | None:
        """For a layer's weight; `None` leaves it in float."""
        from micronet.quantization import output_axis
        from micronet_wbwtab.fake_quantizers import BinaryWeight, TernaryWeight

        if self.weights == "float":
            return None
        kind = BinaryWeight if self.weights == "binary" else TernaryWeight
        quantizer = kind(output_axis(layer))
        quantizer.observe(layer.weight.detach())  # type: ignore[operator]
        return quantizer

    def activation_quantizer(self) -> FakeQuantizer | None:
        """For the place of a ReLU; `None` leaves the ReLU there."""
        from micronet_wbwtab.fake_quantizers import BinaryActivation

        return BinaryActivation() if self.activations == "binary" else None
