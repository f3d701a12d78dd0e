"""What ONNX Runtime needs of a Q/DQ graph to be right and fast on it. Real numbers stay."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from micronet.deployment.onnx_graph import Graph
from micronet_onnxruntime import layers, signs

_SHIFT = 128
_CODES = np.iinfo(np.uint8)
_MOVES = {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice"}
"""Operations that ONNX Runtime does on 8-bit integers as on real numbers, and whose results are
some of their inputs."""


def rewrite(graph: Graph) -> dict[str, str]:
    """Gives an exported graph the form that runs on integer kernels.

    An activation of 8 bits or less becomes one QuantizeLinear with unsigned codes, right behind
    what computes it, then what moves or clamps it, then a DequantizeLinear.

    Returns:
        The quantized layers that are computed in float all the same, and why.
    """
    make_activations_unsigned(graph)
    signs.rewrite(graph)
    quantize_early(graph)
    move_integers(graph)
    in_float = layers.rewrite(graph)
    separate_weights(graph)
    graph.remove_unused_constants()
    return in_float


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


def separate_weights(graph: Graph) -> None:
    """Gives each signed 8-bit weight codes and a zero point of its own.

    Where a processor's kernels would saturate, onnxruntime makes both unsigned, layer by layer, and
    fails on those that it has changed already.
    """
    taken: set[str] = set()
    for node in graph.nodes:
        weight = node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
        if not weight or len(node.input) < 3 or graph.value(node.input[0]).dtype != np.int8:  # noqa: PLR2004
            continue
        for position in (0, 2):
            name = node.input[position]
            if name in taken:
                node.input[position] = graph.add(f"{name}_of_{node.output[0]}", graph.value(name))
            taken.add(name)


def quantize_early(graph: Graph) -> None:
    """What moves or clamps values that are quantized next does it to their 8-bit codes instead."""
    clamp_integers(graph)
    while any(_swapped(graph, node) for node in reversed(graph.nodes)):
        graph.replace_nodes(list(graph.nodes))
        clamp_integers(graph)


def _swapped(graph: Graph, quantize: onnx.NodeProto) -> bool:
    """Whether a QuantizeLinear and what moves its values have changed their places."""
    if not quantizes_to_bytes(graph, quantize):
        return False
    move = graph.producers.get(quantize.input[0])
    if move is None or move.op_type not in _MOVES or len(move.output) > 1:
        return False
    if len(graph.readers(move.output[0])) > 1:
        return False
    moving = onnx.NodeProto()
    moving.CopyFrom(move)
    codes = f"{quantize.output[0]}_unmoved"
    moving.input[0], moving.output[0] = codes, quantize.output[0]
    quantize.input[0], quantize.output[0] = move.input[0], codes
    move.CopyFrom(quantize)
    quantize.CopyFrom(moving)
    return True


def clamp_integers(graph: Graph) -> None:
    """A Relu or Clip before an 8-bit QuantizeLinear becomes a Clip of its codes, if they need one.

    Rounding to a grid never reverses an order, so it makes no difference which comes first. ONNX
    Runtime does it too, but only where no Clip is left: where the zero point is not the lowest
    code, or the grid is narrower than 8 bits, the layer before would not run on integers.
    """
    graph.replace_nodes([new for node in graph.nodes for new in _clamped_after(graph, node)])


def _clamped_after(graph: Graph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A node, or what stands for it if it quantizes to 8 bits."""
    if not quantizes_to_bytes(graph, node):
        return [node]
    low, high = -np.inf, np.inf
    source = node.input[0]
    while (bounds := _bounds(graph, graph.producers.get(source))) is not None:
        # What comes first is found last, and what comes after it has the last word.
        low, high = (float(np.clip(end, low, high)) for end in bounds)
        source = graph.producers[source].input[0]
    scale, zero_point = graph.value(node.input[1]), int(graph.value(node.input[2]))
    lowest, highest = (
        int(np.clip(np.rint(np.float32(end) / scale) + zero_point, _CODES.min, _CODES.max))
        for end in (low, high)
    )
    node.input[0] = source
    if (lowest, highest) == (_CODES.min, _CODES.max):
        return [node]
    codes = node.output[0]
    node.output[0] = f"{codes}_unclamped"
    ends = [graph.add(f"uint8_{code}", np.array(code, np.uint8)) for code in (lowest, highest)]
    return [node, helper.make_node("Clip", [node.output[0], *ends], [codes], f"{node.name}_clamp")]


def _bounds(graph: Graph, node: onnx.NodeProto | None) -> tuple[float, float] | None:
    """The range that a Relu or Clip cuts its input to."""
    if node is None or node.op_type not in ("Relu", "Clip"):
        return None
    if node.op_type == "Relu":
        return 0.0, np.inf
    bounds = [-np.inf, np.inf]
    for end, name in enumerate(node.input[1:]):
        if name and name not in graph.constants:
            return None
        if name:
            bounds[end] = float(graph.value(name))
    return bounds[0], bounds[1]


def move_integers(graph: Graph) -> None:
    """What only moves dequantized values moves their codes, and dequantizes afterwards."""
    graph.replace_nodes(list(_moving_integers(graph)))


def _moving_integers(graph: Graph) -> Iterator[onnx.NodeProto]:
    moved: dict[str, onnx.NodeProto] = {}  # what writes the real numbers of values moved so far
    for node in graph.nodes:
        source = node.input[0] if node.input else ""
        before = moved.get(source) or graph.producers.get(source)
        yield node
        if node.op_type not in _MOVES or before is None or not _dequantizes_bytes(graph, before):
            continue
        node.input[0] = before.input[0]
        for position, output in enumerate(node.output):
            node.output[position] = f"{output}_codes"
            moved[output] = helper.make_node(
                "DequantizeLinear",
                [node.output[position], *before.input[1:]],
                [output],
                f"{output}_dequantized",
            )
            yield moved[output]


def quantizes_to_bytes(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node gives 8-bit codes of activations."""
    if node.op_type != "QuantizeLinear":
        return False
    return bool(graph.value(node.input[2]).dtype == np.uint8)


def _dequantizes_bytes(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node gives the real numbers of 8-bit activations."""
    if node.op_type != "DequantizeLinear" or node.input[0] in graph.constants:
        return False
    return bool(graph.value(node.input[2]).dtype == np.uint8)
