"""Circular padding, which OpenVINO's reader of ONNX does not know, as slices put together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from micronet.deployment.onnx_graph import Graph


def write_out_circular_padding(model: onnx.ModelProto) -> None:
    """Replaces each Pad of mode `wrap` with constant pads by Slice and Concat, in place."""
    graph = Graph(model)
    written = {
        node.output[0]: list(_slices(graph, node)) for node in graph.nodes if _wraps(graph, node)
    }
    graph.replace_nodes(
        each for node in graph.nodes for each in written.get(node.output[0], [node])
    )
    graph.remove_unused_constants()


def _wraps(graph: Graph, node: onnx.NodeProto) -> bool:
    modes = [helper.get_attribute_value(a) for a in node.attribute if a.name == "mode"]
    return node.op_type == "Pad" and modes == [b"wrap"] and node.input[1] in graph.constants


def _slices(graph: Graph, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    name, value = node.output[0], node.input[0]
    before, after = graph.value(node.input[1]).reshape(2, -1)
    padded = np.flatnonzero(before + after)
    for axis in padded:
        last = axis == padded[-1]
        parts, ends = [value], np.iinfo(np.int64).max
        for end, start, stop in ((0, -before[axis], ends), (1, 0, after[axis])):
            if (before, after)[end][axis]:
                part = f"{name}.{axis}.{end}"
                limits = [
                    graph.add(f"{part}.{what}", np.array([number], np.int64))
                    for what, number in (("start", start), ("stop", stop), ("axis", axis))
                ]
                yield helper.make_node("Slice", [value, *limits], [part])
                parts.insert(0 if end == 0 else len(parts), part)
        value = name if last else f"{name}.{axis}"
        yield helper.make_node("Concat", parts, [value], axis=int(axis))
