"""Affine integer grids whose ranges are observed.

    quant_model = prepare(model, inplace=False, a_bits=8, w_bits=8, q_type=0, q_level=0)

`q_type` is 0 for symmetric grids, 1 for asymmetric; `q_level` 0 for a scale of its own for each
channel of a weight, 1 for one; `weight_observer` 0 for `minmax`, 1 for `moving_average`. `ptq`
observes a percentile of the activations, for calibration without training; `qaft` keeps grids and
batch-norm statistics as they are loaded.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from micronet import registry
from micronet.base_module.op import Add, Concat
from micronet.compression.quantization import translation
from micronet.errors import QuantizationError
from micronet.quantization import hold
from micronet.quantization.layers import (
    QuantizedConv2d,
    QuantizedConvTranspose2d,
    QuantizedLayer,
    QuantizedLinear,
)

__all__ = [
    "QuantAdaptiveAvgPool2d",
    "QuantAdd",
    "QuantAvgPool2d",
    "QuantBNFuseConv2d",
    "QuantConcat",
    "QuantConv2d",
    "QuantConvTranspose2d",
    "QuantLeakyReLU",
    "QuantLinear",
    "QuantMaxPool2d",
    "QuantReLU",
    "QuantSigmoid",
    "prepare",
    "quantizer",
]

_SYMMETRIC = {0: True, 1: False}
_PER_CHANNEL = {0: True, 1: False}
_WEIGHT_OBSERVERS = {0: "minmax", 1: "moving_average"}


def quantizer(
    *,
    a_bits: int = 8,
    w_bits: int = 8,
    q_type: int = 0,
    q_level: int = 0,
    weight_observer: int = 0,
    bn_fuse: bool = False,
    bn_fuse_calib: bool = False,
    ptq: bool = False,
    percentile: float = 0.9999,
) -> Any:
    """The registry's quantizer for classic arguments. Raises OptionError."""
    symmetric = translation.translated("q_type", q_type, _SYMMETRIC)
    moving_percentile = {"name": "percentile", "percentile": percentile}
    fold_bn = "running" if bn_fuse_calib else "batch"
    return registry.create(
        "quantizer",
        "iao",
        a_bits=a_bits,
        w_bits=w_bits,
        a_symmetric=symmetric,
        w_symmetric=symmetric,
        per_channel=translation.translated("q_level", q_level, _PER_CHANNEL),
        w_observer=translation.translated("weight_observer", weight_observer, _WEIGHT_OBSERVERS),
        a_observer=moving_percentile if ptq else "moving_average",
        fold_bn=fold_bn if bn_fuse else "after",
    )


def prepare(
    model: nn.Module,
    inplace: bool = False,
    a_bits: int = 8,
    w_bits: int = 8,
    q_type: int = 0,
    q_level: int = 0,
    weight_observer: int = 0,
    bn_fuse: bool = False,
    bn_fuse_calib: bool = False,
    pretrained_model: bool = False,  # noqa: ARG001 (statistics are never initialised anew)
    qaft: bool = False,
    ptq: bool = False,
    percentile: float = 0.9999,
    quant_inference: bool = False,
) -> nn.Module:
    """A model whose weighted layers are quantized.

    Args:
        model: Float.
        inplace: Change `model` itself; else a copy is.
        a_bits: Width of the activations, 2 to 16.
        w_bits: Width of the weights, 2 to 16.
        q_type: 0 symmetric, 1 asymmetric.
        q_level: 0 a scale for each channel of a weight, 1 one scale.
        weight_observer: 0 `minmax`, 1 `moving_average`.
        bn_fuse: Quantize weights as they will be once the batch norm behind them is folded in.
        bn_fuse_calib: Fold with running statistics instead of the batch's.
        pretrained_model: Keep the model's batch-norm statistics; they are kept in any case.
        qaft: Grids and batch-norm statistics stay as the state_dict that will be loaded has them.
        ptq: Observe a percentile of the activations, for calibration.
        percentile: Which, above 0.5 and at most 1.
        quant_inference: The weights that will be loaded are quantized values already.

    Raises:
        OptionError: A number stands for nothing.
        QuantizationError: Nothing to quantize, or already quantized.
    """
    technique = quantizer(
        a_bits=a_bits,
        w_bits=w_bits,
        q_type=q_type,
        q_level=q_level,
        weight_observer=weight_observer,
        bn_fuse=bn_fuse,
        bn_fuse_calib=bn_fuse_calib,
        ptq=ptq,
        percentile=percentile,
    )
    return translation.prepare(
        model, technique, inplace=inplace, quant_inference=quant_inference, qaft=qaft
    )


class _Quantized(QuantizedLayer):
    """torch's layer with its arguments, and those that `prepare` has."""

    def __init__(
        self,
        *args: Any,
        a_bits: int = 8,
        w_bits: int = 8,
        q_type: int = 0,
        q_level: int = 0,
        weight_observer: int = 0,
        quant_inference: bool = False,
        qaft: bool = False,
        ptq: bool = False,
        percentile: float = 0.9999,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        technique = quantizer(
            a_bits=a_bits,
            w_bits=w_bits,
            q_type=q_type,
            q_level=q_level,
            weight_observer=weight_observer,
            ptq=ptq,
            percentile=percentile,
        )
        self.input_quantizer = technique.activation_quantizer()
        self.weight_quantizer = translation.weight_quantizer(
            technique, self, quant_inference=quant_inference
        )
        if qaft:
            hold(self)


class QuantConv2d(_Quantized, QuantizedConv2d):
    pass


class QuantConvTranspose2d(_Quantized, QuantizedConvTranspose2d):
    pass


class QuantLinear(_Quantized, QuantizedLinear):
    pass


class QuantBNFuseConv2d(nn.Sequential):
    """A convolution, its weight quantized as folded, and its batch norm, `conv` and `bn`.

    Args:
        args: torch's `Conv2d`'s, as keywords too; by default without the bias, as the batch norm
            has one.
        eps: The batch norm's.
        momentum: The batch norm's.
        options: `prepare`'s, but for `bn_fuse`.
    """

    def __init__(
        self,
        *args: Any,
        eps: float = 1e-5,
        momentum: float = 0.1,
        **options: Any,
    ) -> None:
        own = {name: options.pop(name) for name in _CONVOLUTION if name in options}
        if len(args) <= _CONVOLUTION.index("bias"):
            own.setdefault("bias", False)
        conv = nn.Conv2d(*args, **own)
        super().__init__()
        self.conv: nn.Module = conv
        self.bn: nn.Module = nn.BatchNorm2d(conv.out_channels, eps, momentum)
        prepare(self, inplace=True, bn_fuse=True, **options)


_CONVOLUTION = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "bias",
    "padding_mode",
    "device",
    "dtype",
)


class _QuantizedInputs(nn.Module):
    """An operation with its own arguments, that quantizes each input first.

    Args:
        inputs: How many tensors it takes.
    """

    def __init__(
        self,
        *args: Any,
        inputs: int = 1,
        a_bits: int = 8,
        q_type: int = 0,
        qaft: bool = False,
        ptq: bool = False,
        percentile: float = 0.9999,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        technique = quantizer(a_bits=a_bits, q_type=q_type, ptq=ptq, percentile=percentile)
        self.input_quantizers = nn.ModuleList(
            technique.activation_quantizer() for _ in range(inputs)
        )
        if qaft:
            hold(self)

    def forward(self, *inputs: Tensor) -> Tensor:
        if len(inputs) != len(self.input_quantizers):
            raise QuantizationError(
                f"{type(self).__name__} was made for {len(self.input_quantizers)} inputs, got "
                f"{len(inputs)}; say inputs={len(inputs)} where it is made."
            )
        quantized = (q(x) for q, x in zip(self.input_quantizers, inputs, strict=True))
        out: Tensor = super().forward(*quantized)
        return out


class QuantReLU(_QuantizedInputs, nn.ReLU):
    pass


class QuantLeakyReLU(_QuantizedInputs, nn.LeakyReLU):
    pass


class QuantSigmoid(_QuantizedInputs, nn.Sigmoid):
    pass


class QuantMaxPool2d(_QuantizedInputs, nn.MaxPool2d):
    pass


class QuantAvgPool2d(_QuantizedInputs, nn.AvgPool2d):
    pass


class QuantAdaptiveAvgPool2d(_QuantizedInputs, nn.AdaptiveAvgPool2d):
    pass


class QuantAdd(_QuantizedInputs, Add):
    """The sum of two tensors, or of `inputs`."""

    def __init__(self, *args: Any, inputs: int = 2, **kwargs: Any) -> None:
        super().__init__(*args, inputs=inputs, **kwargs)


class QuantConcat(_QuantizedInputs, Concat):
    """Two tensors, or `inputs`, one behind the other."""

    def __init__(self, *args: Any, inputs: int = 2, **kwargs: Any) -> None:
        super().__init__(*args, inputs=inputs, **kwargs)
