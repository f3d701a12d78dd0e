"""What TensorRT needs of a Q/DQ graph to compute it rightly. Real numbers stay."""

from __future__ import annotations

from collections import defaultdict

from micronet.deployment.onnx_graph import Graph, layer_name
from micronet_tensorrt.lint import is_on_constant, why_no_integer_kernel

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_NAMED = 4
"""Layers that a remark names before it counts the others."""


def dequantize_weights_without_kernel(graph: Graph) -> list[str]:
    """Writes weights as real numbers where TensorRT has no integer kernel for the layer.

    Returns:
        For each reason a remark that names the layers.
    """
    layers: dict[str, list[str]] = defaultdict(list)
    for node in graph.nodes:
        if node.op_type not in _WEIGHTED:
            continue
        weight = graph.producers.get(node.input[1])
        if weight is None or not is_on_constant(graph, weight):
            continue
        reason = why_no_integer_kernel(graph, node)
        if reason is None and graph.dequantize_before(node.input[0]) is None:
            reason = "What they read is not quantized."
        if reason is not None:
            node.input[1] = graph.add(f"{node.input[1]}_real", graph.dequantized(weight))
            layers[reason].append(layer_name(node))
    _remove_unread(graph)
    return [f"In float: {_listed(names)}. {reason}" for reason, names in layers.items()]


def remark_on_float_layers(graph: Graph) -> list[str]:
    """A remark that names the layers whose weights no quantizer has touched, if others' are."""
    weighted = [node for node in graph.nodes if node.op_type in ("Conv", "ConvTranspose", "Gemm")]
    names = [layer_name(node) for node in weighted if node.input[1] in graph.constants]
    if not names or len(names) == len(weighted):
        return []
    return [f"In float: {_listed(names)}. The quantizer has left their weights so."]


def _remove_unread(graph: Graph) -> None:
    """Removes DequantizeLinear nodes on constants that nothing reads any more."""
    read = {name for node in graph.nodes for name in node.input}
    unread = [
        node for node in graph.nodes if is_on_constant(graph, node) and not read & set(node.output)
    ]
    for node in unread:
        graph.nodes.remove(node)


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
