"""Convolutions of signs with binary or ternary weights, computed on bits.

With x and w of -1 and 1, a sum of products is that of XNORs, counted with their signs (Rastegari
et al. 2016). OpenVINO's BinaryConvolution does that for many products with one instruction, and
scale, bias and the next sign run on each sum in place, so that bits are what goes from layer to
layer. Nothing here knows a quantizer: layers are found by the codes and scales of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from micronet.deployment.onnx_graph import Graph

DOMAIN = "micronet"
"""Of `BinaryConvolution(bits, packed weights)`, which `engine.read` makes OpenVINO's own."""

_FAKE_QUANTIZE_DOMAIN = "org.openvinotoolkit"
_MOVES = {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"}
"""What commutes with the sign, and runs before it, since only BinaryConvolution reads bits."""

_BYTE = 8
"""The kernel is silently wrong with input channels that fill no whole bytes."""

_JUST_BELOW_0 = -float(np.finfo(np.float32).tiny)
"""FakeQuantize gives its upper value above its threshold, and ours belongs to 0 as well."""

_FEWEST_PRODUCTS = {
    "binary convolution": 32,
    "binary group convolution": 128,
    "ternary convolution": 128,
    "ternary group convolution": 512,
}
"""In a sum, that make bits faster than integers: where they are fewer, what is done once for each
sum outweighs them (chains of equal layers at 32x32 pixels, one thread, AVX-512)."""


@attrs.frozen(eq=False)
class BinaryLayer:
    """A two-dimensional convolution of signs, as the exported graph has it.

    Args:
        node: The Conv.
        name: Of the layer in the model.
        source: Numbers whose signs it reads.
        moves: What moves the signs around on their way, in order.
        codes: Its weights in units of `scale`: -1, 0 or 1, int8 [out, in / groups, height, width].
        scale: Of a unit of its sums, float32 [out].
    """

    node: onnx.NodeProto
    name: str
    source: str
    moves: list[onnx.NodeProto]
    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def attribute(self, name: str) -> Any:
        return next(
            helper.get_attribute_value(each) for each in self.node.attribute if each.name == name
        )

    def why_not(self) -> str | None:
        """Why it is not worth it, as the end of a sentence; `None` if it is."""
        values = "binary" if self.codes.all() else "ternary"
        kind = f"{values} {'group ' if self.attribute('group') > 1 else ''}convolution"
        products, fewest = self.codes[0].size, _FEWEST_PRODUCTS[kind]
        if products >= fewest:
            return None
        return f"a {kind} gains from {fewest} products a sum on, and there are {products}"


def find(graph: Graph) -> Iterator[BinaryLayer]:
    """The layers of a graph that could run on bits."""
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        moves: list[onnx.NodeProto] = []
        value = node.input[0]
        while value in graph.producers and graph.producers[value].op_type in _MOVES:
            moves.insert(0, graph.producers[value])
            value = moves[0].input[0]
        sign, weight = _sign(graph, value), _few_valued_weight(graph, node.input[1])
        if sign is not None and weight is not None:
            (where, magnitude), (name, codes, scale) = sign, weight
            source = where.output[0]
            compared = graph.producers[where.input[0]].input[0]
            if not _is_sum(graph, compared):
                source = compared
            yield BinaryLayer(node, name, source, moves, codes, scale * magnitude)


def _sign(graph: Graph, value: str) -> tuple[onnx.NodeProto, np.float32] | None:
    """The Where that makes a value the sign of something, and the value's magnitude.

    That is a Where of two opposite constants, by whether something is at least 0, behind Q/DQ
    nodes or not. `None` if the value is no sign.
    """
    factor = np.float32(1)
    node = graph.producers.get(value)
    if node is not None and node.op_type == "DequantizeLinear":
        quantize = graph.producers.get(node.input[0])
        if quantize is None or graph.value(node.input[2]).any():
            return None
        factor = graph.value(node.input[1]) / graph.value(quantize.input[1])
        node = graph.producers.get(quantize.input[0])
    if node is None or node.op_type != "Where":
        return None
    condition = graph.producers.get(node.input[0])
    if condition is None or condition.op_type != "GreaterOrEqual":
        return None
    if any(name not in graph.constants for name in (condition.input[1], *node.input[1:])):
        return None
    threshold, high, low = map(graph.value, (condition.input[1], *node.input[1:]))
    if threshold.any() or high.size > 1 or high <= 0 or low != -high:
        return None
    return node, np.float32(high * factor)


def _is_sum(graph: Graph, value: str) -> bool:
    """Whether a value is a sum of two values, as of a residual or of two binary convolutions.

    The engine fuses such sums into a binary convolution, and then a sign of it as well, but to
    bits, not to numbers. A sign that is a Where it leaves alone.
    """
    while value in graph.producers:
        node = graph.producers[value]
        if node.op_type == "Conv":
            weight = _few_valued_weight(graph, node.input[1])
            return weight is not None and not weight[1].all()
        changing = [name for name in node.input if name not in graph.constants]
        if len(changing) > 1:
            return True
        value = changing[0]
    return False


def _few_valued_weight(
    graph: Graph, value: str
) -> tuple[str, NDArray[np.int8], NDArray[np.float32]] | None:
    """Name, codes and scales of a weight whose codes are -1, 0 and 1; `None` if it is no such."""
    node = graph.producers.get(value)
    if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in graph.constants:
        return None
    codes, scale, zero_point = map(graph.value, node.input)
    if codes.dtype != np.int8 or codes.ndim != 4 or zero_point.any() or np.abs(codes).max() > 1:  # noqa: PLR2004
        return None
    name = node.input[0].removesuffix(".weight_quantizer.codes")
    return name, codes, np.broadcast_to(scale, len(codes))


def lower(model: onnx.ModelProto, layers: list[BinaryLayer]) -> None:
    """Rewrites layers of a model, in place, as binary convolutions."""
    graph = Graph(model)
    by_output = {layer.node.output[0]: layer for layer in layers}
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        layer = by_output.get(node.output[0])
        nodes.extend([node] if layer is None else _Lowering(graph, layer).nodes())
    graph.replace_nodes(nodes)
    graph.remove_unused_constants()
    for domain in (DOMAIN, _FAKE_QUANTIZE_DOMAIN):
        model.opset_import.append(helper.make_opsetid(domain, 1))


class _Lowering:
    """Writes the nodes of one layer."""

    def __init__(self, graph: Graph, layer: BinaryLayer) -> None:
        self.graph = graph
        self.layer = layer
        self.output = layer.node.output[0]
        self.written: list[onnx.NodeProto] = []

    def nodes(self) -> list[onnx.NodeProto]:
        layer, groups = self.layer, self.layer.attribute("group")
        x = layer.source
        for move in layer.moves:
            copied = onnx.NodeProto()
            copied.CopyFrom(move)
            copied.input[0] = x
            copied.name = copied.output[0] = x = self.name(move.output[0])
            self.written.append(copied)
        inputs = [x]
        if groups > 1:
            inputs = [self.name(f"group_{group}") for group in range(groups)]
            self.add("Split", [x], inputs, axis=1, num_outputs=groups)
        missing = -layer.codes.shape[1] % _BYTE
        if missing:
            pads = self.graph.add(self.name("pads"), np.array([0, 0, 0, 0, 0, missing, 0, 0]))
            inputs = [self.add("Pad", [each, pads], [f"{each}_padded"]) for each in inputs]
        terms = _binary_terms(_with_channels(layer.codes, missing))
        scale = layer.scale / np.float32(len(terms))
        self.add_terms(
            [self.scaled(f"{number}", inputs, each, scale) for number, each in enumerate(terms)]
        )
        return self.written

    def scaled(
        self, label: str, inputs: list[str], codes: NDArray[np.int8], scale: NDArray[np.float32]
    ) -> str:
        """The sums of products of all groups, times a scale."""
        groups = np.split(codes, len(inputs))
        sums = [
            self.binary(f"{label}_{group}", x, each)
            for group, (x, each) in enumerate(zip(inputs, groups, strict=True))
        ]
        total = sums[0]
        if len(sums) > 1:
            total = self.add("Concat", sums, [self.name(f"sums_{label}")], axis=1)
        constant = self.graph.add(self.name(f"scale_{label}"), scale.reshape(1, -1, 1, 1))
        return self.add("Mul", [total, constant], [self.name(f"scaled_{label}")])

    def add_terms(self, terms: list[str]) -> None:
        """Adds up what the layer's output is the sum of, its bias to the first."""
        if len(self.layer.node.input) > 2:  # noqa: PLR2004
            bias = self.graph.value(self.layer.node.input[2]).reshape(1, -1, 1, 1)
            constant = self.graph.add(self.name("bias"), bias)
            terms[0] = self.add("Add", [terms[0], constant], [self.name("biased")])
        if len(terms) > 1:
            self.add("Add", terms, [self.output])
        else:
            self.written[-1].output[0] = self.output

    def binary(self, label: str, x: str, codes: NDArray[np.int8]) -> str:
        threshold, minus, plus = (
            self.graph.add(f"{DOMAIN}_{name}", np.array(value, np.float32))
            for name, value in (("threshold", _JUST_BELOW_0), ("minus", 0), ("plus", 1))
        )
        bits = self.add(
            "FakeQuantize",
            [x, threshold, threshold, minus, plus],
            [self.name(f"bits_{label}")],
            domain=_FAKE_QUANTIZE_DOMAIN,
            levels=2,
        )
        # The other way around than OpenVINO's own constants: the kernel reads low bits first.
        packed = np.packbits(codes.reshape(-1) > 0, bitorder="little")
        return self.add(
            "BinaryConvolution",
            [bits, self.graph.add(self.name(f"weight_{label}"), packed)],
            [self.name(f"sums_of_{label}")],
            domain=DOMAIN,
            shape=codes.shape,
            **{name: self.layer.attribute(name) for name in ("strides", "pads", "dilations")},
        )

    def name(self, label: str) -> str:
        return f"{self.output}_{label}"

    def add(self, operation: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        self.written.append(
            helper.make_node(operation, inputs, outputs, name=outputs[0], **attributes)
        )
        return outputs[0]


def _with_channels(codes: NDArray[np.int8], count: int) -> NDArray[np.int8]:
    """Weights with more input channels, whose signs are all the same, that add nothing to sums."""
    signs = np.resize(np.array([1, -1], np.int8), count)
    signs[count - count % 2 :] = 0
    more = np.broadcast_to(signs[None, :, None, None], (len(codes), count, *codes.shape[2:]))
    return np.concatenate([codes, more], 1)


def _binary_terms(codes: NDArray[np.int8]) -> list[NDArray[np.int8]]:
    """Binary weights whose mean is a binary or a ternary one."""
    if codes.all():
        return [codes]
    return [np.where(codes == 0, np.int8(sign), codes) for sign in (1, -1)]
