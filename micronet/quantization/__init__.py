"""What every quantizer shares: fake quantizers, observers' state, quantized layers, packing.

A quantizer plugin decides which tensors go on which grid; everything from there to the packed
file and the engine is here and knows no technique.
"""

from micronet.quantization import qdq
from micronet.quantization.convert import StoredWeight, convert
from micronet.quantization.fake_quantizer import AffineFakeQuantizer, FakeQuantizer, weight_of
from micronet.quantization.grid import Grid
from micronet.quantization.kernels import along, fake_quantize
from micronet.quantization.layers import (
    QuantizedLayer,
    layers_left_in_float,
    output_axis,
    quantize_layer,
    quantized_layers,
)
from micronet.quantization.lifecycle import (
    calibrate,
    fake_quantizers,
    freeze,
    hold,
    in_mode,
    is_ready,
)
from micronet.quantization.observation import (
    NotFiniteError,
    ObserverModule,
    RangeObserver,
    check_finite,
    extremes,
    share,
)
from micronet.quantization.placement import (
    place_quantizers,
    quantize_weighted_layers,
    weighted_layers,
)
from micronet.quantization.quantized_tensor import QuantizedTensor, code_dtype

__all__ = [
    "AffineFakeQuantizer",
    "FakeQuantizer",
    "Grid",
    "NotFiniteError",
    "ObserverModule",
    "QuantizedLayer",
    "QuantizedTensor",
    "RangeObserver",
    "StoredWeight",
    "along",
    "calibrate",
    "check_finite",
    "code_dtype",
    "convert",
    "extremes",
    "fake_quantize",
    "fake_quantizers",
    "freeze",
    "hold",
    "in_mode",
    "is_ready",
    "layers_left_in_float",
    "output_axis",
    "place_quantizers",
    "qdq",
    "quantize_layer",
    "quantize_weighted_layers",
    "quantized_layers",
    "share",
    "weight_of",
    "weighted_layers",
]
