"""An ONNX graph whose nodes are found by what they write; backends rewrite it for their engines."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_MOVES = {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"}


class Graph:
    """An ONNX model with its constants and producers by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = model.graph.node
        self.proto = model.graph
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {output: node for node in self.nodes for output in node.output}

    def value(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = numpy_helper.to_array(self.constants[name])
        return array

    def add(self, name: str, value: NDArray[Any]) -> str:
        """A new constant; the name of the one that is there if it is there."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(value, name)
            self.proto.initializer.append(self.constants[name])
        return name

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a value."""
        return [node for node in self.nodes if name in node.input]

    def dequantize_before(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that a value comes from, through what only moves it around."""
        node = self.producers.get(name)
        while node is not None and node.op_type in _MOVES:
            node = self.producers.get(node.input[0])
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def dequantized(self, dequantize: onnx.NodeProto) -> NDArray[np.float32]:
        """The real numbers of a DequantizeLinear on a constant."""
        codes, scale, zero_point = (self.value(name) for name in dequantize.input)
        shape = [1] * codes.ndim
        if scale.ndim:
            shape[axis_of(dequantize)] = -1
        centred = codes.astype(np.float32) - zero_point.astype(np.float32).reshape(shape)
        real: NDArray[np.float32] = centred * scale.reshape(shape)
        return real

    def replace_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Other nodes, in an order in which they can run; those whose results nobody reads go."""
        needed = {output.name for output in self.proto.output}
        kept = []
        for node in reversed(list(nodes)):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        del self.nodes[:]
        self.nodes.extend(reversed(kept))
        self.producers = {output: node for node in self.nodes for output in node.output}

    def remove_unused_constants(self) -> None:
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.proto.initializer if tensor.name in used]
        del self.proto.initializer[:]
        self.proto.initializer.extend(kept)
        del self.proto.value_info[:]  # they may name old types; the engine infers them anew


def axis_of(node: onnx.NodeProto) -> int:
    """The axis of a QuantizeLinear or DequantizeLinear with a scale for each channel."""
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return axes[0] if axes else 1


def layer_name(node: onnx.NodeProto) -> str:
    """The module that a node of an export of ours comes from; the node's own name elsewhere."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes: list[str] = ast.literal_eval(entry.value)
            inside = [scope for scope in scopes[:-1] if scope]
            if inside:
                return inside[-1]
    return node.name or node.op_type
