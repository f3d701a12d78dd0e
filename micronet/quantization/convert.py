"""From simulation to inference form: weights become the integers that the engine gets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from micronet.errors import QuantizationError
from micronet.graph.copying import copy_of
from micronet.quantization import qdq
from micronet.quantization.fake_quantizer import FakeQuantizer, weight_of
from micronet.quantization.kernels import widened
from micronet.quantization.layers import quantized_layers
from micronet.quantization.observation import ShapedByData
from micronet.quantization.quantized_tensor import QuantizedTensor

_TOLERANCE = 1e-3
"""Of the largest weight: far above what float16 loses."""


class StoredWeight(ShapedByData):
    """Stands where a layer's weight quantizer stood: integer codes that give back the weight."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, tensor: QuantizedTensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        """Of the weight that it gives; scales stay float32."""
        self.store(tensor)

    def store(self, tensor: QuantizedTensor) -> None:
        """Replaces what is stored."""
        self.register_buffer("codes", tensor.codes)
        self.register_buffer("scale", tensor.scale)
        self.register_buffer("zero_point", tensor.zero_point)
        self.bits = tensor.bits
        self.axis = tensor.axis

    @property
    def tensor(self) -> QuantizedTensor:
        return QuantizedTensor(self.codes, self.scale, self.zero_point, self.bits, self.axis)

    def forward(self, _weight: None) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return qdq.dequantize(self.tensor).to(self.dtype)
        return self.tensor.dequantize(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StoredWeight:
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self


@torch.no_grad()
def convert(model: nn.Module) -> nn.Module:
    """A copy of a prepared model with integer weights, in eval mode, with the same outputs.

    Raises:
        QuantizationError: The integers of a layer stand for other weights than were simulated; or
            a quantizer has seen no data yet (when the result is run).
    """
    converted = copy_of(model).eval()
    for name, layer in quantized_layers(converted):
        quantizer = layer.weight_quantizer
        if isinstance(quantizer, FakeQuantizer):
            weight = weight_of(layer)
            tensor = quantizer.quantize(widened(weight))
            if quantizer.ready:
                _check_codes(name, tensor, quantizer.rounded(weight))
            layer.weight_quantizer = StoredWeight(tensor, weight.dtype)
            layer.register_parameter("weight", None)
    return converted


def _check_codes(name: str, codes: QuantizedTensor, simulated: Tensor) -> None:
    difference = (codes.dequantize() - simulated).abs().amax()
    tolerance = max(_TOLERANCE, 2 * torch.finfo(simulated.dtype).eps)
    if difference > tolerance * simulated.abs().amax():
        raise QuantizationError(
            f"The integers of {name!r} stand for other weights than were simulated, off by up to "
            f"{difference:.3g}: quantize() and fake_quantize() of its quantizer do not agree."
        )
