"""Exported graphs at another precision compute the same numbers, but for what was rounded."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from micronet.deployment.export import export_onnx
from micronet.deployment.precision import at_precision, in_float, in_half
from micronet.errors import DeployError
from micronet.quantization import fake_quantizers
from micronet.registry import create

X = 20 * torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """Convolutions, a transposed one between other counts of channels, resizing, a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 6, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem(x).relu(), 2)
        x = nn.functional.interpolate(self.up(self.body(x).relu()), scale_factor=2)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


QUANTIZERS = {
    "binary weights": ("wbwtab", {"activations": "float"}),
    "4 bits": ("iao", {"w_bits": 4, "a_bits": 4, "a_symmetric": True, "per_channel": False}),
    "dorefa": ("dorefa", {"w_bits": 6}),
}


def no_rounding(name, quantizer):
    """What a quantizer of activations does but for the rounding."""
    if name == "dorefa":
        return lambda x: (0.1 * x).clamp(0, 1)
    grid, scale, zero = quantizer.grid, quantizer.scale, quantizer.zero_point
    return lambda x: x.clamp((grid.quant_min - zero) * scale, (grid.quant_max - zero) * scale)


@pytest.fixture(scope="module", params=QUANTIZERS)
def exported(request, tmp_path_factory):
    """The graph of a model, and the model with its activations unrounded."""
    torch.manual_seed(0)
    name, options = QUANTIZERS[request.param]
    quantizer = create("quantizer", name, **options)
    model = quantizer.prepare(Net().eval(), (X,))
    if quantizer.needs_data:
        quantizer.calibrate(model, [X / 4])  # so that what follows lies outside what was seen
    model = quantizer.convert(model)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(model, (X,), path)
    for _, fake_quantizer in fake_quantizers(model):
        fake_quantizer.forward = no_rounding(name, fake_quantizer)
    return onnx.load(path), model


def run(model, x=X):
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"input": x.numpy()})[0]


def expected(model, x=X):
    with torch.no_grad():
        return model(x).numpy()


def test_in_float_the_graph_computes_the_simulation_without_its_rounding(exported):
    graph, model = exported
    floating = in_float(graph)
    assert not {node.op_type for node in floating.graph.node} & {
        "QuantizeLinear",
        "DequantizeLinear",
    }
    assert {tensor.data_type for tensor in floating.graph.initializer} <= {
        TensorProto.FLOAT,
        TensorProto.INT64,
    }
    assert np.allclose(run(floating), expected(model), rtol=1e-4, atol=1e-4)


def test_in_half_it_computes_nearly_the_same_from_float32_to_float32(exported):
    graph, model = exported
    half, wanted = in_half(graph), expected(model)
    types = {tensor.data_type for tensor in half.graph.initializer if tensor.dims}
    assert TensorProto.FLOAT16 in types
    found = run(half)
    assert found.dtype == np.float32
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert 0 < error < 5e-3


def test_any_batch_still_runs(exported):
    graph, model = exported
    assert np.allclose(run(in_float(graph), X[:1]), expected(model, X[:1]), rtol=1e-4, atol=1e-4)
    assert run(in_half(graph), X[:3]).shape == (3, 10)


def test_a_float16_file_is_half_as_large():
    weight = helper.make_tensor("w", TensorProto.FLOAT, [8, 3, 64, 64], np.ones(98304, "f"))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["output"])],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 8, 1, 1])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert 0.49 < in_half(model).ByteSize() / model.ByteSize() < 0.51


def test_a_precision_is_chosen_by_its_name(exported):
    graph, _ = exported
    types = {
        name: {node.op_type for node in at_precision(graph, name).graph.node}
        for name in ("model", "int8", "fp32", "fp16")
    }
    assert "DequantizeLinear" in types["model"] & types["int8"]
    assert "DequantizeLinear" not in types["fp32"] | types["fp16"]
    assert "Cast" in types["fp16"] - types["fp32"]


def test_int8_of_a_float_model_is_refused_with_what_to_do(exported):
    graph, _ = exported
    with pytest.raises(DeployError, match=r"not quantized.*Quantize it first"):
        at_precision(in_float(graph), "int8")


def quantized(nodes):
    """A graph of nodes between `input` and `output`, with the constants of a grid."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("scales", TensorProto.FLOAT, [2], [0.1, 0.2]),
            helper.make_tensor("zero", TensorProto.INT8, [], [0]),
            helper.make_tensor("zeros", TensorProto.INT8, [2], [0, 0]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_the_graph_itself_stays_as_it_is():
    model = quantized(
        [
            helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["codes"], "first"),
            helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["output"], "last"),
        ]
    )
    before = model.SerializeToString()
    assert [node.op_type for node in in_float(model).graph.node] == ["Clip"]
    in_half(model)
    assert model.SerializeToString() == before


def test_what_works_on_integers_is_refused_by_name():
    model = quantized(
        [
            helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["codes"], "first"),
            helper.make_node("MaxPool", ["codes"], ["pooled"], "pool", kernel_shape=[2, 2]),
            helper.make_node("Cast", ["pooled"], ["output"], "cast", to=TensorProto.FLOAT),
        ]
    )
    with pytest.raises(DeployError, match="MaxPool 'pool' works on the integers of 'first'"):
        in_float(model)


@pytest.mark.parametrize(
    ("nodes", "culprit"),
    [
        (
            [
                helper.make_node("QuantizeLinear", ["input", "scales", "zeros"], ["q"], "first"),
                helper.make_node("DequantizeLinear", ["q", "scales", "zeros"], ["output"], "last"),
            ],
            "last",
        ),
        (
            [
                helper.make_node("Cast", ["input"], ["q"], "cast", to=TensorProto.INT8),
                helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["output"], "last"),
            ],
            "last",
        ),
    ],
)
def test_integers_of_unknown_origin_are_refused_by_name(nodes, culprit):
    with pytest.raises(DeployError, match=f"'{culprit}' reads integers that no QuantizeLinear"):
        in_float(quantized(nodes))
