"""An exported graph at another precision: float32 without quantization, or float16."""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np
import onnx
import onnx_ir
from onnx import helper

from micronet.deployment.onnx_graph import Graph
from micronet.errors import DeployError

Precision = Literal["model", "int8", "fp32", "fp16"]
"""What a graph computes in; "model" leaves it as the quantizer has."""


def at_precision(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """A float or quantized graph at a precision.

    Raises:
        DeployError: It should be int8 and nothing has quantized it; or as `in_float`.
    """
    if precision == "fp32":
        return in_float(model)
    if precision == "fp16":
        return in_half(model)
    if precision == "int8" and not any(n.op_type == "DequantizeLinear" for n in model.graph.node):
        raise DeployError(
            "The model is not quantized, so no int8 can come of it. Quantize it first, or choose "
            "another precision: model, fp32, fp16."
        )
    return model


def in_float(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in float32 without Q/DQ nodes; all that it loses is the rounding of activations.

    Integer weights become the real numbers that they stand for. A pair of Q and DQ on an
    activation becomes a Clip to the range that its codes cover, since a model may rely on it: in
    DoReFa the bounds are the nonlinearity. Where DQ has another scale than Q, a Mul follows.

    Raises:
        DeployError: A Q/DQ node is neither on a constant nor one of such a pair.
    """
    floating = onnx.ModelProto()
    floating.CopyFrom(model)
    graph = Graph(floating)
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear":
            nodes.extend(_without_rounding(graph, node))
        elif node.op_type != "QuantizeLinear":
            nodes.append(node)
    for node in nodes:
        for name in node.input:
            if name in graph.producers and graph.producers[name].op_type == "QuantizeLinear":
                raise DeployError(
                    f"The graph can't be written in float32: {node.op_type} {node.name!r} works on "
                    f"the integers of {graph.producers[name].name!r}."
                )
    del graph.nodes[:]
    graph.nodes.extend(nodes)
    graph.remove_unused_constants()
    return floating


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """`in_float` of the graph in float16. Inputs and outputs stay float32, with Casts behind and
    before them; so do operations that ONNX or engines know in float32 only, as `NonMaxSuppression`.

    A number beyond float16 becomes the largest one, or the smallest that is not 0.

    Raises:
        DeployError: As `in_float`.
    """
    path = list(sys.path)
    from onnxruntime.transformers.float16 import convert_float_to_float16

    sys.path[:] = path  # its package puts its folder of scripts there
    half = convert_float_to_float16(in_float(model), keep_io_types=True)
    ordered = onnx_ir.from_proto(half)  # its Casts stand at the end, and behind who reads them
    ordered.graph.sort()
    sorted_half: onnx.ModelProto = onnx_ir.to_proto(ordered)
    return sorted_half


def _without_rounding(graph: Graph, dequantize: onnx.NodeProto) -> list[onnx.NodeProto]:
    """What stands for a DequantizeLinear in float32; nothing where it becomes a constant."""
    codes, scale_name, zero_name = dequantize.input
    (output,) = dequantize.output
    scale, zero_point = graph.value(scale_name), graph.value(zero_name)
    if codes in graph.constants:
        graph.add(output, graph.dequantized(dequantize))
        return []
    quantize = graph.producers.get(codes)
    if quantize is None or quantize.op_type != "QuantizeLinear" or scale.size != 1:
        raise DeployError(
            f"The graph can't be written in float32: {dequantize.name!r} reads integers that no "
            f"QuantizeLinear with one scale has just written."
        )
    into = graph.value(quantize.input[1])
    info = np.iinfo(zero_point.dtype)
    bounds = [
        graph.add(
            f"{output}_{end}", ((code - zero_point.astype(np.float32)) * into).astype(np.float32)
        )
        for end, code in (("low", info.min), ("high", info.max))
    ]
    clipped = output if scale == into else f"{output}_clipped"
    nodes = [helper.make_node("Clip", [quantize.input[0], *bounds], [clipped], dequantize.name)]
    if clipped != output:
        factor = graph.add(f"{output}_factor", (scale / into).astype(np.float32))
        nodes.append(
            helper.make_node("Mul", [clipped, factor], [output], f"{dequantize.name}_scale")
        )
    return nodes
