"""DoReFa's uniform grids, of 2 to 16 bits; 32 stands for float.

quant_model = prepare(model, inplace=False, a_bits=8, w_bits=8)
"""

from __future__ import annotations

from typing import Any

from torch import nn

from micronet import registry
from micronet.compression.quantization import translation
from micronet.quantization.layers import (
    QuantizedConv2d,
    QuantizedConvTranspose2d,
    QuantizedLayer,
    QuantizedLinear,
)

__all__ = ["QuantConv2d", "QuantConvTranspose2d", "QuantLinear", "prepare", "quantizer"]


def quantizer(*, a_bits: int = 8, w_bits: int = 8) -> Any:
    """The registry's quantizer for classic arguments. Raises OptionError."""
    return registry.create("quantizer", "dorefa", a_bits=a_bits, w_bits=w_bits)


def prepare(
    model: nn.Module,
    inplace: bool = False,
    a_bits: int = 8,
    w_bits: int = 8,
    quant_inference: bool = False,
) -> nn.Module:
    """A model whose layers, but the first, are quantized.

    Args:
        model: Float.
        inplace: Change `model` itself; else a copy is.
        a_bits: Width of the activations.
        w_bits: Width of the weights.
        quant_inference: The weights that will be loaded are quantized values already.

    Raises:
        OptionError: Such bits do not exist.
        QuantizationError: Nothing to quantize, or already quantized.
    """
    technique = quantizer(a_bits=a_bits, w_bits=w_bits)
    return translation.prepare(model, technique, inplace=inplace, quant_inference=quant_inference)


class _Quantized(QuantizedLayer):
    """torch's layer with its arguments, and bits as `prepare` takes them."""

    def __init__(
        self,
        *args: Any,
        a_bits: int = 8,
        w_bits: int = 8,
        quant_inference: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        technique = quantizer(a_bits=a_bits, w_bits=w_bits)
        self.input_quantizer = technique.activation_quantizer()
        self.weight_quantizer = translation.weight_quantizer(
            technique, self, quant_inference=quant_inference
        )


class QuantConv2d(_Quantized, QuantizedConv2d):
    pass


class QuantConvTranspose2d(_Quantized, QuantizedConvTranspose2d):
    pass


class QuantLinear(_Quantized, QuantizedLinear):
    pass
