"""`for_tensorrt` names the node and the rule in each broken graph, and nothing in a sound one."""

import numpy as np
import onnx
import pytest
import torch
import torchvision
from micronet_tensorrt.lint import for_tensorrt
from micronet_tensorrt.rewriting import dequantize_weights_without_kernel
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node as node

from micronet.deployment.onnx_graph import Graph

INT8, FLOAT = np.int8, np.float32
CONSTANTS = {
    "scale": np.array(0.1, FLOAT),
    "zero": np.array(0, INT8),
    "scales": np.full(4, 0.1, FLOAT),
    "zeros": np.zeros(4, INT8),
    "codes": np.ones((4, 4, 3, 3), INT8),
    "flat_codes": np.ones((4, 4), INT8),
    "bias_codes": np.ones(4, np.int32),
    "bias_zero": np.array(0, np.int32),
    "kernel": np.ones((4, 4, 3, 3), FLOAT),
}


def graph(*nodes, opset=21, domain=None, **constants):
    """The nodes between `input` [1, 4, 8, 8] and `output`, with what constants they read."""
    read = {name for each in nodes for name in each.input}
    values = {**CONSTANTS, **constants}
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values[name], name) for name in sorted(read & set(values))],
    )
    opsets = [helper.make_opsetid("", opset)]
    if domain is not None:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def activation(source="input", into="x", scale="scale", zero="zero", **attributes):
    return [
        node("QuantizeLinear", [source, scale, zero], [f"{into}_codes"], "act_q", **attributes),
        node("DequantizeLinear", [f"{into}_codes", scale, zero], [into], "act_dq", **attributes),
    ]


def weight(codes="codes", scale="scales", zero="zeros", **attributes):
    return node("DequantizeLinear", [codes, scale, zero], ["w"], "weight", **attributes)


def conv(*inputs):
    return node("Conv", list(inputs), ["output"], "conv", pads=[1, 1, 1, 1])


def transposed(**attributes):
    return node("ConvTranspose", ["x", "w"], ["output"], "up", **attributes)


SOUND = {
    "per channel": graph(*activation(), weight(axis=0), conv("x", "w")),
    "per layer": graph(*activation(), weight(scale="scale", zero="zero"), conv("x", "w")),
    "negative axis": graph(*activation(), weight(axis=-4), conv("x", "w")),
    "float bias": graph(
        *activation(), weight(axis=0), conv("x", "w", "b"), b=np.ones(4, FLOAT)
    ),
    "float weights": graph(*activation(), conv("x", "kernel")),
    "transposed per layer": graph(
        *activation(), weight(scale="scale", zero="zero"), transposed()
    ),
    "gemm": graph(
        node("Flatten", ["input"], ["flat"]),
        *activation("flat"),
        weight("flat_codes", axis=1),
        node("Gemm", ["x", "w"], ["output"], "head"),
    ),
    "transposed gemm": graph(
        node("Flatten", ["input"], ["flat"]),
        *activation("flat"),
        weight("flat_codes", axis=0),
        node("Gemm", ["x", "w"], ["output"], "head", transB=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_graph_is_taken(name):
    assert for_tensorrt(SOUND[name]) == []


def relu(source="x"):
    return node("Relu", [source], ["output"], "act")


def minimal(*nodes, **constants):
    return graph(*nodes, relu(), **constants)


BROKEN = [
    (graph(relu("input"), opset=8), "The graph is of opset 8; TensorRT reads 9 to 24."),
    (
        graph(node("Gelu", ["input"], ["output"], "g", domain="com.acme"), domain="com.acme"),
        "Gelu 'g' is of the domain 'com.acme'",
    ),
    (graph(node("Det", ["input"], ["output"], "d")), "Det 'd' has no counterpart in TensorRT."),
    (
        graph(
            node("Resize", ["input", "", "sizes"], ["output"], "up", mode="cubic"),
            sizes=np.array([1, 1, 2, 2], FLOAT),
        ),
        "Resize 'up' interpolates cubic; TensorRT knows nearest and linear.",
    ),
    (
        graph(
            node("Resize", ["input", "", "sizes"], ["output"], "up", mode="linear", antialias=1),
            sizes=np.array([1, 1, 2, 2], FLOAT),
        ),
        "Resize 'up' is antialiased",
    ),
    (
        graph(node("MaxPool", ["input"], ["output", "where"], "pool", kernel_shape=[2, 2])),
        "MaxPool 'pool' gives indices too",
    ),
    (
        graph(
            node("MaxPool", ["input"], ["output"], "pool", kernel_shape=[2, 2], dilations=[2, 1])
        ),
        "MaxPool 'pool' is dilated",
    ),
    (
        minimal(node("QuantizeLinear", ["input", "scale"], ["c"], "q"),
                node("DequantizeLinear", ["c", "scale"], ["x"], "dq")),
        "QuantizeLinear 'q' has no zero point, which makes it uint8",
    ),
    (
        minimal(node("Abs", ["scale"], ["computed"]), *activation(scale="computed")),
        "QuantizeLinear 'act_q' computes its scale or zero point",
    ),
    (
        minimal(*activation(zero="unsigned"), unsigned=np.array(128, np.uint8)),
        "QuantizeLinear 'act_q' works on uint8 codes; TensorRT knows int8",
    ),
    (
        minimal(*activation(zero="wide"), wide=np.array(0, np.int16)),
        "QuantizeLinear 'act_q' works on int16 codes; TensorRT knows int8",
    ),
    (
        minimal(*activation(zero="shifted"), shifted=np.array(3, INT8)),
        "QuantizeLinear 'act_q' has a zero point other than 0",
    ),
    (
        minimal(*activation(scale="none"), none=np.array(0, FLOAT)),
        "QuantizeLinear 'act_q' has a scale that is not above 0",
    ),
    (
        minimal(*activation(scale="nan"), nan=np.array(np.nan, FLOAT)),
        "QuantizeLinear 'act_q' has a scale that is not above 0",
    ),
    (
        graph(*activation(), weight(zero="zero", axis=0), conv("x", "w")),
        "DequantizeLinear 'weight' has 4 scales and 1 zero points",
    ),
    (
        minimal(*activation(scale="scales", zero="zeros", axis=1)),
        "QuantizeLinear 'act_q' has a scale for each channel of an activation",
    ),
    (
        graph(*activation(), weight(axis=4), conv("x", "w")),
        "DequantizeLinear 'weight' has 4 scales along axis 4 of a tensor of shape (4, 4, 3, 3).",
    ),
    (
        graph(*activation(), weight(axis=2), conv("x", "w")),
        "DequantizeLinear 'weight' has 4 scales along axis 2 of a tensor of shape (4, 4, 3, 3).",
    ),
    (
        graph(*activation(), weight(axis=1), conv("x", "w")),
        "Conv 'conv' has a scale for each index of axis 1 of its weight; TensorRT wants them",
    ),
    (
        graph(
            node("Flatten", ["input"], ["flat"]),
            *activation("flat"),
            weight("flat_codes", axis=0),
            node("Gemm", ["x", "w"], ["output"], "head"),
        ),
        "Gemm 'head' has a scale for each index of axis 0 of its weight",
    ),
    (
        graph(*activation(), weight(axis=1), transposed()),
        "ConvTranspose 'up': TensorRT's integer kernel takes the scales of a transposed",
    ),
    (
        graph(*activation(), weight(scale="scale", zero="zero"), transposed(group=2)),
        "ConvTranspose 'up': TensorRT has no integer kernel for a transposed convolution in groups",
    ),
    (
        graph(
            *activation(),
            weight(axis=0),
            node("DequantizeLinear", ["bias_codes", "scale", "bias_zero"], ["b"], "bias"),
            conv("x", "w", "b"),
        ),
        "Conv 'conv' has a quantized bias; TensorRT wants it in float.",
    ),
    (
        graph(
            node("QuantizeLinear", ["input", "scale", "zero"], ["c"], "q"),
            node("MaxPool", ["c"], ["m"], "pool", kernel_shape=[2, 2]),
            node("DequantizeLinear", ["m", "scale", "zero"], ["output"], "dq"),
        ),
        "MaxPool 'pool' works on integers; TensorRT wants a DequantizeLinear right behind",
    ),
    (
        graph(
            node("Cast", ["input"], ["c"], "cast", to=TensorProto.INT8),
            node("DequantizeLinear", ["c", "scale", "zero"], ["output"], "dq"),
        ),
        "DequantizeLinear 'dq' reads integers that no QuantizeLinear has just written",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "sentence"), BROKEN, ids=[told for _, told in BROKEN])
def test_a_broken_graph_is_told_by_node_and_rule(broken, sentence):
    assert any(told.startswith(sentence) for told in for_tensorrt(broken)), for_tensorrt(broken)


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (graph(weight(axis=0), conv("input", "w")), "conv", "What they read is not quantized."),
        (
            graph(*activation(), weight(scale="scale", zero="zero"), transposed(group=2)),
            "up",
            "TensorRT has no integer kernel for a transposed convolution in groups.",
        ),
    ],
)
def test_weights_without_an_integer_kernel_become_real_numbers(model, name, reason):
    rewritten = Graph(model)
    assert dequantize_weights_without_kernel(rewritten) == [f"In float: {name}. {reason}"]
    assert rewritten.value(rewritten.nodes[-1].input[1]) == pytest.approx(0.1)
    assert not any(each.name == "weight" for each in rewritten.nodes)
    assert for_tensorrt(model) == []


def test_layers_with_an_integer_kernel_stay_as_they_are():
    model = SOUND["per channel"]
    before = model.SerializeToString()
    assert dequantize_weights_without_kernel(Graph(model)) == []
    assert model.SerializeToString() == before


WHOLE = {
    "nin": lambda create: create("model", "nin").build(),
    "nin_gc": lambda create: create("model", "nin_gc").build(),
    "resnet18": lambda _: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda _: torchvision.models.mobilenet_v2(num_classes=10),
}


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", [("iao", {"target": "tensorrt"}), ("wbwtab", {})])
@pytest.mark.parametrize("name", WHOLE)
def test_our_exports_are_sound(create, tmp_path, name, quantizer):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    technique = create("quantizer", quantizer[0], **quantizer[1])
    prepared = technique.prepare(WHOLE[name](create), (x,))
    if technique.needs_data:
        technique.calibrate(prepared, [x])
    fused = create("fuser", "bn").fuse(prepared, (x,)).eval()
    path = tmp_path / "model.onnx"
    create("deploy_backend", "tensorrt").write_graph(fused, (x,), path)  # refuses what is unsound
    assert for_tensorrt(onnx.load(path)) == []
