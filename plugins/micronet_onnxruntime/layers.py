"""Convolutions and linear layers: those with an integer kernel, and those without."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from micronet.deployment.onnx_graph import Graph, axis_of, layer_name
from micronet_onnxruntime import signs

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BIAS = 2
"""Where a node has its bias among its inputs."""
_LARGEST_BIAS = 2**30
"""In steps of the accumulator, an int32; half of it is left for the sum."""
_LARGEST_CODE = 127
_NARROW = 16
"""Channels of a group below which the integer convolution gains by joining groups."""


@attrs.frozen
class Layer:
    """A node with a weight, and the nodes that dequantize what it reads.

    Args:
        node: The convolution or product.
        weight: Dequantizes its constant weight.
        data: Dequantizes its input; `None` where that is not quantized.
    """

    node: onnx.NodeProto
    weight: onnx.NodeProto
    data: onnx.NodeProto | None

    @property
    def name(self) -> str:
        """Of its result, which no other node has."""
        name: str = self.node.output[0]
        return name

    @property
    def has_bias(self) -> bool:
        return len(self.node.input) > _BIAS


def rewrite(graph: Graph) -> dict[str, str]:
    """Gives each quantized layer the form that ONNX Runtime computes fastest.

    Returns:
        The layers that it computes in float, and why.
    """
    nodes: list[onnx.NodeProto] = []
    in_float: dict[str, str] = {}
    for node in graph.nodes:
        layer = _layer(graph, node)
        if layer is not None:
            obstacle = _obstacle(graph, layer)
            if obstacle is None:
                nodes += on_integers(graph, layer)
            else:
                nodes += with_folded_weight(graph, layer)
                in_float[layer_name(node)] = obstacle
        nodes.append(node)
    graph.replace_nodes(nodes)
    return in_float


def _layer(graph: Graph, node: onnx.NodeProto) -> Layer | None:
    if node.op_type not in _WEIGHTED:
        return None
    weight = graph.producers.get(node.input[1])
    if weight is None or weight.op_type != "DequantizeLinear":
        return None
    if weight.input[0] not in graph.constants:
        return None
    data = graph.producers.get(node.input[0])
    quantized = data is not None and data.op_type == "DequantizeLinear"
    return Layer(node, weight, data if quantized else None)


def _obstacle(graph: Graph, layer: Layer) -> str | None:
    """Why ONNX Runtime has no integer kernel for a layer; `None` if it has one.

    A convolution must be read by a QuantizeLinear alone; a product need not.
    """
    if layer.node.op_type == "ConvTranspose":
        return "it has none for transposed convolutions"
    if layer.data is None or graph.value(layer.data.input[2]).dtype != np.uint8:
        return "the input is not of 8 bits or less"
    if graph.value(layer.weight.input[0]).dtype not in (np.int8, np.uint8):
        return "the weight does not fit 8-bit integers"
    if layer.has_bias and layer.node.input[_BIAS] not in graph.constants:
        return "the bias is computed"
    readers = [reader.op_type for reader in graph.readers(layer.name)]
    if layer.node.op_type == "Conv" and readers != ["QuantizeLinear"]:
        return "what it gives is not quantized before it is read"
    return None


def on_integers(graph: Graph, layer: Layer) -> list[onnx.NodeProto]:
    """Weight and bias of a layer as integers; the nodes that dequantize them."""
    assert layer.data is not None
    codes, scale, zero = (graph.value(name) for name in layer.weight.input[:3])
    step = graph.value(layer.data.input[1])
    bias = graph.value(layer.node.input[_BIAS]) if layer.has_bias else None
    names = list(layer.weight.input[:3])
    if bias is not None:
        factor = _refinement(codes, scale, zero, bias / step)
        if (factor != 1).any():
            centre = _along_first(zero.astype(np.float64), codes)
            exact = (codes - centre) * _along_first(factor, codes) + centre
            codes, scale = np.rint(exact).astype(codes.dtype), (scale / factor).astype(np.float32)
            names[0] = graph.add(f"{layer.name}_codes", codes)
            names[1] = graph.add(f"{layer.name}_scale", scale)
    joined = _joined_groups(layer.node, codes, zero)
    if joined is not None:
        names[0] = graph.add(f"{layer.name}_joined_codes", joined)
    nodes = [_dequantize(names, f"{layer.name}_weight", layer.weight.attribute)]
    layer.node.input[1] = nodes[0].output[0]
    if bias is not None:
        steps = (step * scale).astype(np.float32)
        stored = [
            graph.add(f"{layer.name}_bias_codes", _rounded(graph, layer, bias / steps)),
            graph.add(f"{layer.name}_bias_scale", steps),
        ]
        axis = [helper.make_attribute("axis", 0)] if steps.ndim else []
        nodes.append(_dequantize(stored, f"{layer.name}_bias", axis))
        layer.node.input[_BIAS] = nodes[1].output[0]
    return nodes


def _rounded(graph: Graph, layer: Layer, bias: NDArray[Any]) -> NDArray[np.int32]:
    """A bias in whole steps of the accumulator.

    Where a sign reads the layer, rounding down is exact: a whole number plus the bias is at least 0
    exactly if it is so with the floor of the bias.
    """
    readers = graph.readers(layer.name)
    only_signs = all(r.op_type == "QuantizeLinear" and signs.is_sign(graph, r) for r in readers)
    rounded: NDArray[np.int32] = (np.floor if only_signs else np.rint)(bias).astype(np.int32)
    return rounded


def _dequantize(inputs: list[str], output: str, attributes: Any) -> onnx.NodeProto:
    node = helper.make_node("DequantizeLinear", inputs, [output], f"{output}_dequantized")
    node.attribute.extend(attributes)
    return node


def _refinement(
    codes: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], bias: NDArray[Any]
) -> NDArray[Any]:
    """How many steps of the weight should stand for one, for each channel.

    A bias is an int32 in steps of input scale times weight scale. Weights of a few bits leave
    those steps coarse, so that rounding the bias would be felt; their codes have room to grow, by a
    power of two, which changes no real number. A channel that sparse training has silenced, so
    that its bias is all it gives, has steps so fine that its bias would overflow: its codes are
    rounded to coarser ones, and lose less than 2^-30 of the bias for a unit of input.

    Args:
        codes: Of the weight.
        scale: Of the weight, one for each output channel or one for all.
        zero: Of the weight, as `scale`.
        bias: In steps of the input.
    """
    distance = np.abs(codes - _along_first(zero.astype(np.float64), codes))
    bias = np.abs(bias.astype(np.float64))
    if scale.ndim:
        largest = distance.reshape(len(codes), -1).max(1)
    else:
        largest, bias = distance.max(), bias.max()
    room = _LARGEST_CODE / np.maximum(largest, 1) if not zero.any() else np.ones_like(scale)
    most = np.full(scale.shape, np.inf)
    np.divide(_LARGEST_BIAS * scale, bias, out=most, where=bias > 0)
    factor = np.minimum(np.maximum(room, 1), most)
    refinement: NDArray[Any] = np.where(factor >= 1, 2.0 ** np.floor(np.log2(factor)), factor)
    return refinement


def _along_first(values: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    return values.reshape((-1,) + (1,) * (codes.ndim - 1)) if values.ndim else values


def _joined_groups(
    node: onnx.NodeProto, codes: NDArray[Any], zero: NDArray[Any]
) -> NDArray[Any] | None:
    """The weight of a convolution with fewer groups, and zeros where former groups don't meet.

    The integer convolution works group by group, and wastes most of a vector on four channels.
    One that keeps all channels apart has a kernel of its own.
    """
    groups = next((attribute for attribute in node.attribute if attribute.name == "group"), None)
    if node.op_type != "Conv" or groups is None or groups.i == 1:
        return None
    outputs, inputs = codes.shape[0] // groups.i, codes.shape[1]
    if inputs == outputs == 1:
        return None
    joined = 1
    while inputs * joined < _NARROW and groups.i % (2 * joined) == 0:
        joined *= 2
    if joined == 1:
        return None
    wide = np.zeros((codes.shape[0], inputs * joined, *codes.shape[2:]), codes.dtype)
    wide += _along_first(zero, codes)
    for group in range(groups.i):
        rows = slice(group * outputs, (group + 1) * outputs)
        first = group % joined * inputs
        wide[rows, first : first + inputs] = codes[rows]
    groups.i //= joined
    return wide


def with_folded_weight(graph: Graph, layer: Layer) -> list[onnx.NodeProto]:
    """Nodes that dequantize a layer's weight once, when the file is loaded.

    ONNX Runtime leaves a DequantizeLinear to each call, and uses its fast float kernels for
    constant weights only; other operations on constants it does at once.
    """
    codes, scale, zero = (graph.value(name) for name in layer.weight.input[:3])
    names = [f"{layer.name}_weight_{step}" for step in ("float", "centred", "folded")]
    shape = [1] * codes.ndim
    if scale.ndim:
        shape[axis_of(layer.weight)] = -1
    nodes = [
        helper.make_node("Cast", [layer.weight.input[0]], names[:1], to=onnx.TensorProto.FLOAT)
    ]
    for op, constant, output in (("Sub", zero, names[1]), ("Mul", scale, names[2])):
        if op == "Mul" or zero.any():
            values = constant.astype(np.float32).reshape(shape if constant.ndim else ())
            operand = graph.add(f"{output}_by", values)
            nodes.append(helper.make_node(op, [nodes[-1].output[0], operand], [output]))
    layer.node.input[1] = nodes[-1].output[0]
    return nodes
