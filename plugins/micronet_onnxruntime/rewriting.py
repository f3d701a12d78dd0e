"""What ONNX Runtime needs of a Q/DQ graph to be right and fast on it. Real numbers stay."""

from __future__ import annotations

import numpy as np
import onnx

from micronet.onnx_graph import Graph

_SHIFT = 128
_LARGEST_BIAS = 2**30
"""In steps of the accumulator, an int32; half of it is left for the sum."""


def make_activations_unsigned(graph: Graph) -> None:
    """Signed 8-bit activations become unsigned ones, every code and zero point 128 higher.

    The form that ONNX Runtime is fast with on x86, and the one that loads at all: given signed
    ones, onnxruntime 1.32 rewrites them itself and then rejects its own graph wherever a MaxPool
    or Reshape follows ("output_dtype INT8 does not match y_zero_point type UINT8").
    """
    for node in graph.nodes:
        producer = graph.producers.get(node.input[0]) if node.input else None
        reads = producer is not None and producer.op_type == "QuantizeLinear"
        if node.op_type != "QuantizeLinear" and not (node.op_type == "DequantizeLinear" and reads):
            continue
        zero_point = graph.value(node.input[2])
        if zero_point.dtype == np.int8:
            shifted = (zero_point.astype(np.int16) + _SHIFT).astype(np.uint8)
            node.input[2] = graph.add(f"{node.input[2]}_unsigned", shifted)


def make_biases_representable(graph: Graph) -> None:
    """Widens the scales of 8-bit weight channels beside which the bias is out of proportion.

    ONNX Runtime keeps a bias as an int32 in steps of input scale times weight scale. A channel
    that sparse training has silenced, so that its bias is all it gives, has a scale near zero:
    its bias would overflow. Codes of such channels are rounded anew; what they lose is less than
    2^-30 of their bias for a unit of input.
    """
    for node in graph.nodes:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:  # noqa: PLR2004
            continue
        data, weight = (graph.dequantize_before(name) for name in node.input[:2])
        if data is None or weight is None or node.input[2] not in graph.constants:
            continue
        codes_name, scale_name, zero_name = weight.input[:3]
        if codes_name not in graph.constants:
            continue
        codes, scale = graph.value(codes_name), graph.value(scale_name)
        if codes.dtype not in (np.int8, np.uint8):
            continue
        bias = np.abs(graph.value(node.input[2]))
        if scale.ndim == 0:
            bias = bias.max()
        smallest = (bias / (_LARGEST_BIAS * graph.value(data.input[1]))).astype(np.float32)
        if not (scale < smallest).any():
            continue
        widened = np.maximum(scale, smallest)
        per_channel = (-1,) + (1,) * (codes.ndim - 1) if scale.ndim else ()
        zero = graph.value(zero_name).astype(np.float32).reshape(per_channel)
        ratio = (scale / widened).reshape(per_channel)
        rounded = np.rint((codes.astype(np.float32) - zero) * ratio + zero)
        weight.input[0] = graph.add(f"{codes_name}_widened", rounded.astype(codes.dtype))
        weight.input[1] = graph.add(f"{scale_name}_of_{codes_name}_widened", widened)


def has_integer_kernels(graph: Graph) -> bool:
    """Whether every activation is 8 bits wide, so that layers can run on integers."""
    for node in graph.nodes:
        if node.op_type != "QuantizeLinear":
            continue
        source = graph.producers.get(node.input[0])
        clipped = source is not None and source.op_type == "Clip" and len(source.input) > 1
        if graph.value(node.input[2]).dtype.itemsize > 1 or (clipped and _narrower(graph, node)):
            return False
    return True


def _narrower(graph: Graph, quantize: onnx.NodeProto) -> bool:
    """Whether the Clip before a node keeps its codes within less than 8 bits."""
    clip = graph.producers[quantize.input[0]]
    scale, zero = graph.value(quantize.input[1]), graph.value(quantize.input[2])
    if len(clip.input) < 3 or clip.input[2] not in graph.constants:  # noqa: PLR2004
        return False
    highest = graph.value(clip.input[2]) / scale + zero.astype(np.float32)
    return bool(highest < np.iinfo(zero.dtype).max - 1)
