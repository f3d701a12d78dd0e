"""What TensorRT's documentation asks of an ONNX graph, checked where TensorRT is not.

Sources: the classes IQuantizeLayer and IDequantizeLayer of its headers (10.16 and 11.1), the
operator table of its ONNX parser (10.15), the parser's code (10.1), and for transposed convolutions
what its maintainers say (issues 1694, 1934 and 2380 of NVIDIA/TensorRT).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from micronet.deployment.onnx_graph import Graph, axis_of, layer_name

_OPSETS = range(9, 25)
_OWN_DOMAINS = ("", "ai.onnx")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BIASED = ("Conv", "ConvTranspose", "Gemm")
# fmt: off
_UNSUPPORTED = {
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad",
    "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger",
    "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder",
    "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
    "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement",
    "OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch",
    "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss",
    "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit",
    "TfIdfVectorizer", "Unique",
}
# fmt: on
_RESIZE_MODES = ("nearest", "linear")


def for_tensorrt(model: onnx.ModelProto) -> list[str]:
    """What TensorRT would refuse or compute wrongly; each sentence names the layer and the rule."""
    graph = Graph(model)
    found = [*_opset(model)]
    for node in graph.nodes:
        found += _operator(node)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found += _grid(graph, node) or _channels(graph, node)
        else:
            found += _reads_integers(graph, node)
        if node.op_type in _WEIGHTED:
            found += _weights(graph, node)
        if node.op_type in _BIASED:
            found += _bias(graph, node)
    return found


def _opset(model: onnx.ModelProto) -> Iterator[str]:
    for entry in model.opset_import:
        if entry.domain in _OWN_DOMAINS and entry.version not in _OPSETS:
            yield (
                f"The graph is of opset {entry.version}; TensorRT reads {_OPSETS.start} to "
                f"{_OPSETS.stop - 1}."
            )


def _operator(node: onnx.NodeProto) -> Iterator[str]:
    if node.domain not in _OWN_DOMAINS:
        yield f"{_told(node)} is of the domain {node.domain!r}; TensorRT knows ONNX's own."
    elif node.op_type in _UNSUPPORTED:
        yield f"{_told(node)} has no counterpart in TensorRT."
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    if node.op_type == "Resize":
        mode = attributes.get("mode", b"nearest").decode()
        if mode not in _RESIZE_MODES:
            yield f"{_told(node)} interpolates {mode}; TensorRT knows nearest and linear."
        if attributes.get("antialias"):
            yield f"{_told(node)} is antialiased; TensorRT knows no such Resize."
    if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
        yield f"{_told(node)} gives indices too; TensorRT's gives values only."
    if node.op_type in ("MaxPool", "AveragePool") and set(attributes.get("dilations", [1])) != {1}:
        yield f"{_told(node)} is dilated; TensorRT's pooling is not."


def _grid(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Faults of the scale and the zero point of a Q/DQ node."""
    if len(node.input) < 3 or not node.input[2]:  # noqa: PLR2004
        return [f"{_told(node)} has no zero point, which makes it uint8; TensorRT knows int8."]
    if not set(node.input[1:]) <= set(graph.constants):
        return [f"{_told(node)} computes its scale or zero point; TensorRT wants constants."]
    scale, zero_point = (graph.value(name) for name in node.input[1:])
    found = []
    if zero_point.dtype != np.int8:
        found.append(
            f"{_told(node)} works on {zero_point.dtype} codes; TensorRT knows int8, with zero "
            f"point 0."
        )
    if zero_point.any():
        found.append(
            f"{_told(node)} has a zero point other than 0; TensorRT knows symmetric quantization "
            f"only."
        )
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        found.append(f"{_told(node)} has a scale that is not above 0; TensorRT refuses it.")
    if scale.shape != zero_point.shape:
        found.append(
            f"{_told(node)} has {scale.size} scales and {zero_point.size} zero points; TensorRT "
            f"wants as many."
        )
    return found


def _channels(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Faults of where a Q/DQ node stands, and of a scale for each channel."""
    scale, source = graph.value(node.input[1]), node.input[0]
    if node.op_type == "DequantizeLinear":
        producer = graph.producers.get(source)
        quantized = producer is not None and producer.op_type == "QuantizeLinear"
        if not quantized and source not in graph.constants:
            yield (
                f"{_told(node)} reads integers that no QuantizeLinear has just written; TensorRT "
                f"knows none other."
            )
    if scale.size == 1:
        return
    if source not in graph.constants:
        yield (
            f"{_told(node)} has a scale for each channel of an activation; TensorRT knows one for "
            f"all."
        )
        return
    shape, axis = graph.value(source).shape, axis_of(node)
    if not -len(shape) <= axis < len(shape) or shape[axis] != scale.size:
        yield (
            f"{_told(node)} has {scale.size} scales along axis {axis} of a tensor of shape {shape}."
        )


def _reads_integers(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    for name in node.input:
        producer = graph.producers.get(name)
        if producer is not None and producer.op_type == "QuantizeLinear":
            yield (
                f"{_told(node)} works on integers; TensorRT wants a DequantizeLinear right behind "
                f"the QuantizeLinear."
            )


def _weights(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Faults of the integer weights of a layer."""
    dequantize = graph.producers.get(node.input[1])
    if dequantize is None or not is_on_constant(graph, dequantize):
        return
    if (reason := why_no_integer_kernel(graph, node)) is not None:
        yield f"{_told(node)}: {reason}"
        return
    codes, scale = graph.value(dequantize.input[0]), graph.value(dequantize.input[1])
    axis, outputs = axis_of(dequantize) % codes.ndim, _output_axis(node, codes.ndim)
    if scale.size > 1 and axis != outputs:
        yield (
            f"{_told(node)} has a scale for each index of axis {axis} of its weight; TensorRT "
            f"wants them along the output channels, axis {outputs}."
        )


def why_no_integer_kernel(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Why TensorRT has no right kernel for a transposed convolution with integer weights."""
    if node.op_type != "ConvTranspose":
        return None
    group = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
    if group > 1:
        return "TensorRT has no integer kernel for a transposed convolution in groups."
    dequantize = graph.producers[node.input[1]]
    if graph.value(dequantize.input[1]).size > 1:
        return (
            "TensorRT's integer kernel takes the scales of a transposed convolution's weight for "
            "those of its input channels; these are of its output channels."
        )
    return None


def is_on_constant(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node dequantizes constants, as weights are."""
    return node.op_type == "DequantizeLinear" and node.input[0] in graph.constants


def _output_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """The axis of a layer's weight that runs over its output channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
    return 0 if transposed else dimensions - 1


def _bias(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    if len(node.input) < 3:  # noqa: PLR2004
        return
    producer = graph.producers.get(node.input[2])
    if producer is not None and producer.op_type == "DequantizeLinear":
        yield f"{_told(node)} has a quantized bias; TensorRT wants it in float."


def _told(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {layer_name(node)!r}"
