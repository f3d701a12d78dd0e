"""From simulation to inference form: weights become the integers that the engine gets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from micronet.graph.copying import copy_of
from micronet.quantization import qdq
from micronet.quantization.fake_quantizer import FakeQuantizer, weight_of
from micronet.quantization.kernels import widened
from micronet.quantization.layers import quantized_layers
from micronet.quantization.observation import ShapedByData
from micronet.quantization.quantized_tensor import QuantizedTensor


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
        QuantizationError: A quantizer has seen no data yet (when the result is run).
    """
    converted = copy_of(model).eval()
    for _, layer in quantized_layers(converted):
        if isinstance(layer.weight_quantizer, FakeQuantizer):
            weight = weight_of(layer)
            tensor = layer.weight_quantizer.quantize(widened(weight))
            layer.weight_quantizer = StoredWeight(tensor, weight.dtype)
            layer.register_parameter("weight", None)
    return converted
