"""Binary and ternary convolutions on OpenVINO: on bits, with the simulation's results."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import nn

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

from micronet_openvino import binary, choosing  # noqa: E402 (needs openvino)

X = torch.randn(11, 3, 12, 12, generator=torch.Generator().manual_seed(4))


class Chain(nn.Module):
    """A float convolution, the given ones with batch norms and ReLUs, pooling, a linear layer."""

    def __init__(self, *convolutions: nn.Module) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        channels = 64
        for layer in convolutions:
            layers.append(layer)
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
                layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 10)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Residual(nn.Module):
    """Two convolutions whose results are added before a batch norm and a sign."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 64, 3), nn.ReLU()
        self.left, self.right = nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3)
        self.bn, self.relu2 = nn.BatchNorm2d(64), nn.ReLU()
        self.body, self.relu3 = nn.Conv2d(64, 64, 3), nn.ReLU()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = self.relu(self.stem(x))
        x = self.relu2(self.bn(self.left(x) + self.right(x)))
        return self.head(self.relu3(self.body(x)).mean((2, 3)))


NETS = {
    "strides, padding, pooling": lambda: Chain(
        nn.Conv2d(64, 72, 3, padding=1),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(72, 64, 5, stride=2, padding=2),
        nn.Conv2d(64, 64, 1),
    ),
    "groups, dilation, no bias": lambda: Chain(
        nn.Conv2d(64, 128, (3, 1), bias=False),
        nn.ChannelShuffle(2),
        nn.Conv2d(128, 132, 3, groups=2, padding=2, dilation=2, bias=False),
        nn.Conv2d(132, 64, 1, groups=2),
    ),
    "channels that fill no bytes": lambda: Chain(
        nn.Conv2d(64, 67, 3, padding=1), nn.Conv2d(67, 70, 3, padding=1), nn.Conv2d(70, 64, 3)
    ),
    "sums before a sign": Residual,
}


def converted(create, with_statistics, net, *, weights="binary", fusers=("binary_bn", "bn")):
    torch.manual_seed(0)
    net = with_statistics(NETS[net]()).eval()
    quantizer = create("quantizer", "wbwtab", weights=weights)
    prepared = quantizer.prepare(net, (X[:2],))
    for name in fusers:
        prepared = create("fuser", name).fuse(prepared, (X[:2],))
    return quantizer.convert(prepared)


def simulated(model):
    with torch.no_grad():
        return model(X).numpy()


@pytest.fixture
def deploy(create, tmp_path):
    backend = create("deploy_backend", "openvino")

    def run(model):
        artifact = backend.export(model, (X[:2],), tmp_path)
        return artifact, backend.load(artifact, threads=1)

    return run


def kinds(artifact):
    return [op.get_type_name() for op in openvino.Core().read_model(artifact.path).get_ops()]


CASES = [
    *((net, "binary", ("binary_bn", "bn")) for net in NETS),
    *((net, "ternary", ("bn",)) for net in ("groups, dilation, no bias", "sums before a sign")),
    ("strides, padding, pooling", "binary", ()),
    ("channels that fill no bytes", "ternary", ()),
]


@pytest.mark.parametrize(("net", "weights", "fusers"), CASES)
def test_nets_on_bits_compute_what_the_simulation_does(
    create, with_statistics, deploy, net, weights, fusers
):
    model = converted(create, with_statistics, net, weights=weights, fusers=fusers)
    artifact, runner = deploy(model)
    assert artifact.remarks == ()
    assert "Convolution" in kinds(artifact)  # the first
    assert "BinaryConvolution" in kinds(artifact)
    assert "GroupConvolution" not in kinds(artifact)
    assert kinds(artifact).count("Convolution") == 1
    expected = simulated(model)
    for size in (11, 1, 3):
        found = runner(X[:size].numpy())
        assert found.dtype == np.float32
        assert np.allclose(found, expected[:size], atol=1e-5 * np.abs(expected).max())


def test_a_weight_takes_a_bit_of_the_file(create, with_statistics, deploy):
    model = converted(create, with_statistics, "strides, padding, pooling")
    artifact, _ = deploy(model)
    binary_weights = 64 * 72 * 9 + 72 * 64 * 25 + 64 * 64
    others = 4 * (64 * 27 + 64 + 640 + 10 + 2 * (72 + 64 + 64))
    size = (artifact.directory / "model.bin").stat().st_size
    assert binary_weights / 8 + others <= size <= binary_weights / 8 + others + 2048


def test_few_channels_stay_integers_and_a_remark_says_so(create, with_statistics, deploy):
    torch.manual_seed(0)
    net = with_statistics(Chain(nn.Conv2d(64, 32, 3), nn.Conv2d(32, 64, 3))).eval()
    quantizer = create("quantizer", "wbwtab")
    model = quantizer.convert(quantizer.prepare(net, (X[:2],)))
    artifact, runner = deploy(model)
    (remark,) = artifact.remarks
    assert remark.startswith("features.6 runs on integers, not on bits: ")
    assert "64 input channels" in remark
    expected = simulated(model)
    assert np.allclose(runner(X.numpy()), expected, atol=1e-5 * np.abs(expected).max())


def test_a_layer_that_the_engine_gets_wrong_stays_integers(create, with_statistics, deploy):
    torch.manual_seed(0)
    wrong = nn.Conv2d(64, 64, 5, stride=3, padding=2)  # by openvino 2026.4.1 at least
    net = with_statistics(Chain(wrong, nn.Conv2d(64, 64, 3, padding=1))).eval()
    quantizer = create("quantizer", "wbwtab")
    model = quantizer.convert(quantizer.prepare(net, (X[:2],)))
    artifact, runner = deploy(model)
    expected = simulated(model)
    assert np.allclose(runner(X.numpy()), expected, atol=1e-5 * np.abs(expected).max())
    assert "BinaryConvolution" in kinds(artifact)
    (remark,) = artifact.remarks
    assert remark.startswith("features.3 runs on integers, not on bits: openvino")


def test_a_network_that_the_engine_gets_wrong_stays_integers(
    create, with_statistics, deploy, monkeypatch
):
    # A sign on the sum itself: the engine fuses both into the convolution, and adds bits.
    monkeypatch.setattr(binary, "_is_sum", lambda graph, value: False)
    model = converted(create, with_statistics, "sums before a sign")
    artifact, runner = deploy(model)
    (remark,) = artifact.remarks
    assert remark.endswith("the network on bits computes something else.")
    assert "BinaryConvolution" not in kinds(artifact)
    expected = simulated(model)
    assert np.allclose(runner(X.numpy()), expected, atol=1e-5 * np.abs(expected).max())


@st.composite
def layers(draw):
    """A binary or ternary layer of any shape."""
    groups, kernel = draw(st.integers(1, 3)), draw(st.tuples(*[st.integers(1, 4)] * 2))
    shape = (groups * draw(st.integers(1, 20)), draw(st.integers(1, 40)), *kernel)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = generator.choice(draw(st.sampled_from([[-1, 1], [-1, 0, 1]])), shape)
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        group=groups,
        strides=draw(st.tuples(*[st.integers(1, 2)] * 2)),
        dilations=draw(st.tuples(*[st.integers(1, 2)] * 2)),
        pads=[draw(st.integers(0, extent - 1)) for extent in kernel * 2],
    )
    scale = np.ones(len(codes), np.float32)
    return binary.BinaryLayer(node, "layer", "x", [], codes.astype(np.int8), scale)


@given(layers())
@settings(max_examples=25, deadline=None)
def test_sums_are_exact_for_any_shape(layer):
    assert choosing.is_exact(layer)


def test_a_file_on_bits_is_a_valid_graph_of_the_exporter(create, with_statistics, tmp_path):
    from micronet.export import export_onnx

    model = converted(create, with_statistics, "strides, padding, pooling")
    export_onnx(model, (X[:2],), tmp_path / "model.onnx")
    found = list(binary.find(choosing.Graph(onnx.load(tmp_path / "model.onnx"))))
    assert [layer.name for layer in found] == ["features.3", "features.7", "features.10"]
