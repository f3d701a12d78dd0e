"""Binary activations in the integers of ONNX Runtime."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from micronet.deployment.onnx_graph import Graph

_SMALL, _MIDDLE = np.array(2.0**-100, np.float32), np.array(128, np.uint8)
_SCALE, _ZERO = np.array(1 / 64, np.float32), np.array(64, np.uint8)


def rewrite(graph: Graph) -> None:
    """Makes x >= 0 ? 1 : -1, and the rounding of its result, one QuantizeLinear and a Clip.

    With a scale near zero and a zero point of 128, negative numbers get the code 0 and others at
    least 128, which is made 128. To who reads them, 0 and 128 are -1 and 1, with a zero point of
    64. A layer with an integer kernel writes such codes itself.
    """
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        source = _source(graph, node)
        if source is None:
            nodes.append(node)
            continue
        codes, unclamped = node.output[0], f"{node.output[0]}_unclamped"
        small, middle = graph.add("sign_small", _SMALL), graph.add("sign_middle", _MIDDLE)
        for reader in graph.readers(codes):
            reader.input[1], reader.input[2] = (
                graph.add("sign_scale", _SCALE),
                graph.add("sign_zero", _ZERO),
            )
        nodes += [
            helper.make_node("QuantizeLinear", [source, small, middle], [unclamped], node.name),
            helper.make_node("Clip", [unclamped, "", middle], [codes], f"{node.name}_clamp"),
        ]
    graph.replace_nodes(nodes)


def is_sign(graph: Graph, quantize: NodeProto) -> bool:
    """Whether a QuantizeLinear keeps no more than the sign."""
    return bool(graph.value(quantize.input[1]) == _SMALL)


def _source(graph: Graph, quantize: NodeProto) -> str | None:
    """The value whose sign a node quantizes."""
    if quantize.op_type != "QuantizeLinear":
        return None
    where = graph.producers.get(quantize.input[0])
    compare = graph.producers.get(where.input[0]) if where is not None else None
    if where is None or compare is None:
        return None
    if (where.op_type, compare.op_type) != ("Where", "GreaterOrEqual"):
        return None
    constants = [compare.input[1], *where.input[1:], *quantize.input[1:]]
    if not all(name in graph.constants for name in constants):
        return None
    values = [float(graph.value(name)) for name in constants]
    source: str = compare.input[0]
    return source if values == [0, 1, -1, 1, _MIDDLE] else None
