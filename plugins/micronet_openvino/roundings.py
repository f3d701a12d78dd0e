"""Roundings that OpenVINO's fusions would get wrong, written so that they come out right.

- A convolution, the FakeQuantize of its output, a sum and the FakeQuantize of that become one
  operation, in which the first FakeQuantize does not round: a quarter of the sums are then a step
  off what was simulated. Here a Round of its own precedes it, and is fused as well.
- A concatenation of vectors of less than 8 bits with scales of their own comes out wrong. Behind a
  maximum or minimum over dimensions, where such vectors often come from, here is arithmetic.
- Where a number lies in the middle between two codes, FakeQuantize may take either. Images of 8
  bits have many such pixels. Here a Round of its own, which takes the even one, precedes it.
- Unsigned codes of 16 bits behind a ReLU come out as those of another range. Here they are
  arithmetic, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from micronet.deployment.onnx_graph import Graph

_Pair = tuple[onnx.NodeProto, onnx.NodeProto]
"""A QuantizeLinear and the DequantizeLinear behind it."""


def keep_roundings(model: onnx.ModelProto) -> None:
    """Rewrites those Q and DQ of a model, in place."""
    graph = Graph(model)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for quantize, dequantize in (*_before_sums(graph), *_of_images(graph)):
        replaced[dequantize.output[0]] = _rounded_before(graph, quantize, dequantize)
    for quantize, dequantize in (*_behind_extremes(graph), *_of_unsigned_16_bits(graph)):
        replaced[dequantize.output[0]] = _as_arithmetic(graph, quantize, dequantize)
    graph.replace_nodes(
        each for node in graph.nodes for each in replaced.get(node.output[0], [node])
    )
    graph.remove_unused_constants()


def _before_sums(graph: Graph) -> Iterator[_Pair]:
    """One for each sum that has a convolution's output among its inputs.

    Into that convolution the engine fuses the sum; integers are the best form for the other input.
    """
    for node in graph.nodes:
        if node.op_type == "Add":
            pairs = (_behind(graph, name, {"Conv"}) for name in node.input)
            alone = [
                pair
                for pair in pairs
                if pair and all(len(graph.readers(each.output[0])) == 1 for each in pair)
            ]
            yield from alone[:1]


def _of_images(graph: Graph) -> Iterator[_Pair]:
    given = {value.name for value in graph.proto.input}
    for quantize in graph.nodes:
        if quantize.op_type != "QuantizeLinear":
            continue
        source = quantize.input[0]
        if source in graph.producers and graph.producers[source].op_type == "Clip":
            source = graph.producers[source].input[0]
        if source in given and graph.value(quantize.input[2]).dtype.itemsize == 1:
            yield from ((quantize, each) for each in graph.readers(quantize.output[0]))


def _behind_extremes(graph: Graph) -> Iterator[_Pair]:
    for node in graph.nodes:
        pair = _behind(graph, node.output[0], {"ReduceMax", "ReduceMin"})
        if pair is not None:
            yield pair


def _of_unsigned_16_bits(graph: Graph) -> Iterator[_Pair]:
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear":
            quantize = graph.producers.get(node.input[0])
            if quantize is not None and graph.value(quantize.input[2]).dtype == np.uint16:
                yield quantize, node


def _behind(graph: Graph, value: str, operations: set[str]) -> _Pair | None:
    """The Q and DQ that a value comes from, if they are behind one of some operations."""
    dequantize = graph.producers.get(value)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    quantize = graph.producers.get(dequantize.input[0])
    if quantize is None:
        return None
    source = graph.producers.get(quantize.input[0])
    if source is not None and source.op_type == "Clip":  # to fewer bits than the codes have
        source = graph.producers.get(source.input[0])
    return (quantize, dequantize) if source is not None and source.op_type in operations else None


def _rounded_before(
    graph: Graph, quantize: onnx.NodeProto, dequantize: onnx.NodeProto
) -> list[onnx.NodeProto]:
    """Q and DQ of numbers that have been divided by the scale and rounded."""
    rounding, rounded = _round(graph, quantize)
    one = graph.add("one", np.asarray(1, np.float32))
    codes = f"{rounded}_codes"
    again = [onnx.NodeProto(), onnx.NodeProto()]
    for copy, node in zip(again, (quantize, dequantize), strict=True):
        copy.CopyFrom(node)
    again[0].input[:2] = [rounded, one]
    again[0].output[0] = again[0].name = again[1].input[0] = codes
    return [*rounding, *again]


def _as_arithmetic(
    graph: Graph, quantize: onnx.NodeProto, dequantize: onnx.NodeProto
) -> list[onnx.NodeProto]:
    """What Q and DQ compute, as a Clip and multiplications."""
    rounding, rounded = _round(graph, quantize)
    step, zero_point = graph.value(dequantize.input[1]), graph.value(quantize.input[2])
    info = np.iinfo(zero_point.dtype)
    low, high, factor = (
        graph.add(f"{rounded}_{name}", np.asarray(value, np.float32))
        for name, value in (
            ("low", info.min - int(zero_point)),
            ("high", info.max - int(zero_point)),
            ("step", step),
        )
    )
    clipped, output = f"{rounded}_clipped", dequantize.output[0]
    return [
        *rounding,
        helper.make_node("Clip", [rounded, low, high], [clipped], name=clipped),
        helper.make_node("Mul", [clipped, factor], [output], name=output),
    ]


def _round(graph: Graph, quantize: onnx.NodeProto) -> tuple[list[onnx.NodeProto], str]:
    """Nodes that divide by a QuantizeLinear's scale and round, and the name of the result."""
    scaled, rounded = (f"{quantize.output[0]}_{name}" for name in ("scaled", "rounded"))
    inverse = graph.add(f"{scaled}_by", np.asarray(1 / graph.value(quantize.input[1]), np.float32))
    nodes = [
        helper.make_node("Mul", [quantize.input[0], inverse], [scaled], name=scaled),
        helper.make_node("Round", [scaled], [rounded], name=rounded),
    ]
    return nodes, rounded
