"""From simulation to inference form: weights become the integers that the engine gets."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from micronet.quantization import qdq
from micronet.quantization.fake_quantizer import FakeQuantizer, weight_of
from micronet.quantization.layers import quantized_layers
from micronet.quantization.observation import ShapedByData
from micronet.quantization.quantized_tensor import QuantizedTensor


class StoredWeight(ShapedByData):
    """Stands where a layer's weight quantizer stood: integer codes that give back the weight."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, tensor: QuantizedTensor) -> None:
        super().__init__()
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
            return qdq.dequantize(self.tensor)
        return self.tensor.dequantize()


@torch.no_grad()
def convert(model: nn.Module) -> nn.Module:
    """A copy of a prepared model with integer weights, in eval mode, with the same outputs.

    Raises:
        QuantizationError: A quantizer has seen no data yet (when the result is run).
    """
    converted = copy.deepcopy(model).eval()
    for _, layer in quantized_layers(converted):
        if isinstance(layer.weight_quantizer, FakeQuantizer):
            tensor = layer.weight_quantizer.quantize(weight_of(layer))
            layer.weight_quantizer = StoredWeight(tensor)
            layer.register_parameter("weight", None)
    return converted
