"""Whether this processor's 8-bit kernels add up in 16 bits, where sums of large products end."""

from __future__ import annotations

from functools import cache

import numpy as np
import openvino
from openvino import opset13

from micronet_openvino.core import core

_CHANNELS, _SIZE = 16, 8
_ACTIVATION, _WEIGHT = 255, 127


@cache
def kernels_saturate() -> bool:
    """Runs a convolution whose sums need more than 16 bits; x86 without VNNI gets them wrong."""
    shape = [1, _CHANNELS, _SIZE, _SIZE]
    images = opset13.parameter(shape, openvino.Type.f32)
    ends = [np.full((1, 1, 1, 1), end, np.float32) for end in (0, _ACTIVATION)]
    quantized = opset13.fake_quantize(images, *ends, *ends, levels=_ACTIVATION + 1)
    codes = opset13.constant(np.full((_CHANNELS, _CHANNELS, 1, 1), _WEIGHT, np.int8))
    one = opset13.constant(np.ones((_CHANNELS, 1, 1, 1), np.float32))
    weights = opset13.multiply(opset13.convert(codes, openvino.Type.f32), one)
    sums = opset13.convolution(quantized, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([sums], [images])
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core().compile_model(model, "CPU", options)
    found = compiled([np.full(shape, _ACTIVATION, np.float32)])[0]
    return not np.allclose(found, _CHANNELS * _ACTIVATION * _WEIGHT)
