"""The backend `openvino`: reductions, with which its engine by itself computes something else."""

import numpy as np
import pytest
import torch
from torch import nn

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

from micronet_openvino.core import core  # noqa: E402
from micronet_openvino.reductions import keep_reductions  # noqa: E402
from openvino import opset13  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Weights stay in float")

X = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(4))
OUTPUTS = 4


class Net(nn.Module):
    """A convolution, something that takes its output to vectors, and a linear layer."""

    def __init__(self, vectors):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.LazyLinear(OUTPUTS)
        self.bn, self.bn_of_vectors = nn.BatchNorm2d(8), nn.BatchNorm1d(8)
        self.conv = nn.Conv2d(8, 8, 1, bias=False)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.vectors = vectors

    def forward(self, x):
        return self.head(self.vectors(self, self.stem(x)))


@pytest.fixture
def build(with_statistics):
    def run(vectors):
        torch.manual_seed(0)
        net = Net(vectors).eval()
        net(X)
        return with_statistics(net)

    return run


@pytest.fixture
def check(create, tmp_path):
    """Asserts that the engine computes what a model does, with its graphs for any and one shape."""

    def run(model):
        backend = create("deploy_backend", "openvino")
        runner = backend.load(backend.export(model, (X[:2],), tmp_path), threads=1)
        with torch.no_grad():
            expected = model(X).numpy()
        for count in (1, 2, 3):
            for _ in range(3):
                error = np.abs(runner(X[:count].numpy()) - expected[:count]).max()
                assert error <= 1e-4 * np.abs(expected).max()

    return run


@pytest.fixture
def check_quantized(create, check):
    def run(net, **options):
        quantizer = create("quantizer", "iao", **options)
        prepared = quantizer.prepare(net, (X[:2],))
        quantizer.calibrate(prepared, [X])
        check(prepared.eval())

    return run


def cat(*values):
    return torch.cat(values, 1)


def mean(x, **options):
    return x.mean((2, 3), **options)


def most(x, **options):
    return x.amax((2, 3), **options)


def least(x, **options):
    return x.amin((2, 3), **options)


EXTREMES = {
    "alone": lambda _, x: least(x),
    "kept dimensions, flattened": lambda _, x: least(x, keepdim=True).flatten(1),
    "first in a concatenation": lambda _, x: cat(most(x), mean(x)),
    "last in a concatenation": lambda _, x: cat(mean(x), mean(x) * 2, most(x)),
    "kept dimensions": lambda _, x: cat(mean(x, keepdim=True), most(x, keepdim=True)).flatten(1),
    "behind ReLU": lambda _, x: cat(most(x).relu(), mean(x)),
    "behind Clip": lambda _, x: cat(mean(x), least(x).clamp(-0.5, 0.5)),
    "nested": lambda _, x: cat(cat(mean(x), most(x)), cat(least(x), most(x))),
    "read twice": lambda _, x: cat(most(x), mean(x), most(x) + mean(x)),
    "batch norm behind it": lambda net, x: net.bn_of_vectors(most(x)),
    "three dimensions": lambda _, x: cat(x.flatten(2).max(2)[0], mean(x)),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_a_quantized_maximum_or_minimum(build, check_quantized, name):
    check_quantized(build(EXTREMES[name]))


def test_one_of_4_bits_in_a_concatenation(build, check_quantized):
    net = build(lambda _, x: cat(mean(x.relu()), most(x.relu())))
    check_quantized(net, w_bits=4, a_bits=4)


SCALES = {
    "batch norm": lambda net, x: net.bn(x.relu()).flatten(2).mean(2),
    "batch norm behind max pooling": lambda net, x: (
        net.bn(nn.functional.max_pool2d(x, 2)).flatten(2).mean(2)
    ),
    "batch norm behind an addition": lambda net, x: net.bn(x + x.flip(3)).flatten(2).mean(2),
    "maximum": lambda net, x: net.bn(x.relu()).flatten(2).amax(2),
    "transposed": lambda net, x: net.bn(x.relu()).flatten(2).transpose(1, 2).mean(1),
    "convolution's": lambda net, x: net.conv(x.relu()).flatten(2).mean(2),
}


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_per_channel_before_a_reduction_of_three_dimensions(build, check_quantized, name):
    check_quantized(build(SCALES[name]))


@pytest.mark.parametrize("reduce", [torch.mean, torch.amax, torch.std, torch.norm])
def test_a_scale_per_channel_behind_one_of_floats(build, check, reduce):
    check(build(lambda net, x: reduce(x.flatten(2), dim=2) * net.scale))


REDUCTIONS = ["l1", "l2", "max", "mean", "min", "prod", "sum"]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_each_reduction_is_scaled_per_channel(name, kept):
    reduced = reduction(name, [2], kept=kept)
    scale = np.linspace(0.5, 1.5, 8, dtype=np.float32).reshape(8, *[1] * kept)
    assert_the_same_rewritten(opset13.multiply(reduced, scale))


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("axes", [[1], [2], [-1], [-2, 2]])
@pytest.mark.parametrize("name", ["max", "mean"])
def test_any_dimensions_may_go_or_stay(name, axes, kept):
    assert_the_same_rewritten(reduction(name, axes, kept=kept))


def reduction(name, axes, *, kept):
    images = opset13.parameter([-1, 8, 6], openvino.Type.f32)
    return getattr(opset13, f"reduce_{name}")(images, axes, kept)


def assert_the_same_rewritten(result):
    result.output(0).set_names({"result"})
    images = result
    while images.get_type_name() != "Parameter":
        images = images.input_value(0).get_node()
    network = openvino.Model([result], [images])
    x = np.random.default_rng(0).standard_normal((3, 8, 6)).astype(np.float32)
    expected = openvino.Tensor(np.zeros(1, np.float32))
    assert network.evaluate([expected], [openvino.Tensor(x)])
    keep_reductions(network)
    assert network.output().get_names() == {"result"}
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    found = core().compile_model(network, "CPU", options)([x])[0]
    assert found.shape == expected.data.shape
    assert np.allclose(found, expected.data, rtol=1e-4, atol=1e-4)


class Normed(nn.Module):
    """Tokens through an RMS norm and a linear layer."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(8, 8), nn.RMSNorm(8), nn.Linear(8, OUTPUTS)

    def forward(self, x):
        return self.head(self.norm(self.body(x)))


def test_rms_norm_keeps_its_kernel(create, tmp_path):
    backend = create("deploy_backend", "openvino")
    artifact = backend.export(Normed().eval(), (torch.randn(2, 5, 8),), tmp_path)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core().compile_model(artifact.path, "CPU", options)
    operations = compiled.get_runtime_model().get_ordered_ops()
    assert "RMS" in {each.get_rt_info()["layerType"].astype(str) for each in operations}
