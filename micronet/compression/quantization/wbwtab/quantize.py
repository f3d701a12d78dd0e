"""Weights of two or three values, activations of two.

    quant_model = prepare(model, inplace=False, A=2, W=2)

`W` is 2 for binary weights, 3 for ternary, 32 for float; `A` is 2 for binary activations, 32 for
float.
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
)

__all__ = ["ActivationQuantizer", "QuantConv2d", "QuantConvTranspose2d", "prepare", "quantizer"]

_WEIGHTS = {2: "binary", 3: "ternary", 32: "float"}
_ACTIVATIONS = {2: "binary", 32: "float"}


def quantizer(*, A: int = 2, W: int = 2) -> Any:
    """The registry's quantizer for classic arguments. Raises OptionError."""
    return registry.create(
        "quantizer",
        "wbwtab",
        weights=translation.translated("W", W, _WEIGHTS),
        activations=translation.translated("A", A, _ACTIVATIONS),
    )


def prepare(
    model: nn.Module, inplace: bool = False, A: int = 2, W: int = 2, quant_inference: bool = False
) -> nn.Module:
    """A model whose layers, but the first and the last, are quantized.

    Args:
        model: Float.
        inplace: Change `model` itself; else a copy is.
        A: 2 puts signs in the place of the ReLUs between quantized layers, 32 leaves them.
        W: 2 for binary weights, 3 for ternary, 32 for float.
        quant_inference: The weights that will be loaded are quantized values already.

    Raises:
        OptionError: `A` or `W` is another number.
        QuantizationError: Nothing to quantize, or already quantized.
    """
    return translation.prepare(
        model, quantizer(A=A, W=W), inplace=inplace, quant_inference=quant_inference
    )


class ActivationQuantizer(nn.Sequential):
    """Takes the place of a ReLU: the sign of each value, or with `A=32` the ReLU."""

    def __init__(self, A: int = 2) -> None:
        super().__init__(quantizer(A=A).activation_quantizer() or nn.ReLU())


class _Quantized(QuantizedLayer):
    """torch's layer with its arguments, and `W` as `prepare` takes it."""

    def __init__(
        self, *args: Any, W: int = 2, quant_inference: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.input_quantizer = None
        self.weight_quantizer = translation.weight_quantizer(
            quantizer(W=W), self, quant_inference=quant_inference
        )


class QuantConv2d(_Quantized, QuantizedConv2d):
    pass


class QuantConvTranspose2d(_Quantized, QuantizedConvTranspose2d):
    pass
