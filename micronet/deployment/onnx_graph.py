"""An ONNX graph whose nodes are found by what they write; backends rewrite it for their engines."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from micronet.techniques import Signature

_SIGNATURE = "micronet.signature"
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
        """The nodes that read a value; one that stands for the user where it is an output."""
        readers = [node for node in self.nodes if name in _read_by(node)]
        if any(output.name == name for output in self.proto.output):
            readers.append(helper.make_node("Output", [name], []))
        return readers

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
                needed.update(_read_by(node))
                kept.append(node)
        del self.nodes[:]
        self.nodes.extend(reversed(kept))
        self.producers = {output: node for node in self.nodes for output in node.output}

    def remove_unused_constants(self) -> None:
        used = {name for node in self.nodes for name in _read_by(node)}
        used |= {output.name for output in self.proto.output}
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


def write_signature(model: onnx.ModelProto, signature: Signature) -> None:
    """Names a graph's inputs and outputs by a signature, and keeps that in the model's metadata."""
    specs = (*signature.input_specs, *signature.output_specs)
    values = (*model.graph.input, *model.graph.output)
    _compute_constant_outputs(model.graph)
    names = {value.name: spec.name for value, spec in zip(values, specs, strict=True)}
    inner = {name for node in _all_nodes(model.graph) for name in (*node.input, *node.output)}
    inner |= {tensor.name for tensor in model.graph.initializer}
    for name in inner & set(names.values()) - set(names):
        names[name] = f"{name}_inside"
    _rename(model.graph, names)
    for value, spec in zip(values, specs, strict=True):
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        value.CopyFrom(helper.make_tensor_value_info(spec.name, dtype, spec.shape))
    del model.graph.value_info[:]  # they name sizes by symbols; the engine infers them anew
    helper.set_model_props(model, {_SIGNATURE: signature.to_json()})


def read_signature(model: onnx.ModelProto) -> Signature:
    """The signature that `write_signature` wrote."""
    (text,) = (entry.value for entry in model.metadata_props if entry.key == _SIGNATURE)
    return Signature.from_json(text)


def _compute_constant_outputs(graph: onnx.GraphProto) -> None:
    """A node computes each output, also where the exporter made it a constant; tools rely on it."""
    outputs = {value.name for value in graph.output}
    for tensor in graph.initializer:
        if tensor.name in outputs:
            name, tensor.name = tensor.name, f"{tensor.name}_constant"
            for node in _all_nodes(graph):
                node.input[:] = [tensor.name if each == name else each for each in node.input]
            graph.node.append(helper.make_node("Identity", [tensor.name], [name], name))


def _read_by(node: onnx.NodeProto) -> set[str]:
    """What a node reads, be it in a graph of its own."""
    graphs = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    inner = (name for graph in graphs for each in _all_nodes(graph) for name in each.input)
    return {*node.input, *inner}


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the graphs in them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _all_nodes(inner)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Gives values and constants of a graph, and of the graphs in it, other names."""
    for node in _all_nodes(graph):
        for row in (node.input, node.output):
            row[:] = [names.get(name, name) for name in row]
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
