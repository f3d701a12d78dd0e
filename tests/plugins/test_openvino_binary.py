"""Binary and ternary convolutions on OpenVINO: on bits, with the simulation's results."""

import numpy as np
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
        nn.Conv2d(132, 64, 3, groups=2, padding=1),
    ),
    "channels that fill no bytes": lambda: Chain(
        nn.Conv2d(64, 67, 3, padding=1), nn.Conv2d(67, 70, 3, padding=1), nn.Conv2d(70, 64, 3)
    ),
    "sums before a sign": Residual,
    "one after the other": lambda: Chain(nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3)),
}


CASES = {
    "strides, padding, pooling": ("binary", ("binary_bn", "bn")),
    "groups, dilation, no bias": ("ternary", ("bn",)),
    "channels that fill no bytes": ("binary", ()),
    "sums before a sign": ("binary", ()),
    "one after the other": ("ternary", ("bn",)),
}
BITS = {
    name: 2 if weights == "ternary" or "bytes" in name else 1
    for name, (weights, _) in CASES.items()
}
"""Of a weight. Two binary convolutions make a ternary one, or one of an odd number of channels."""


def quantized(create, net, weights="binary", fusers=()):
    quantizer = create("quantizer", "wbwtab", weights=weights)
    prepared = quantizer.prepare(net, (X[:2],))
    for name in fusers:
        prepared = create("fuser", name).fuse(prepared, (X[:2],))
    return quantizer.convert(prepared)


def simulated(model):
    with torch.no_grad():
        return model(X).numpy()


@pytest.fixture(scope="module")
def deploy(create, tmp_path_factory):
    backend = create("deploy_backend", "openvino")

    def run(model):
        artifact = backend.export(model, (X[:2],), tmp_path_factory.mktemp("engine"))
        return artifact, backend.load(artifact, threads=1)

    return run


def kinds(artifact):
    return [op.get_type_name() for op in openvino.Core().read_model(artifact.path).get_ops()]


def is_the_same(found, expected):
    return np.allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETS)
def test_nets_on_bits_compute_what_the_simulation_does(create, with_statistics, deploy, name):
    torch.manual_seed(0)
    model = quantized(create, with_statistics(NETS[name]()).eval(), *CASES[name])
    artifact, runner = deploy(model)
    assert artifact.remarks == ()
    assert "BinaryConvolution" in kinds(artifact)
    assert kinds(artifact).count("Convolution") == 1  # the first
    assert "GroupConvolution" not in kinds(artifact)
    expected = simulated(model)
    for size in (11, 1, 3):
        found = runner(X[:size].numpy())
        assert found.dtype == np.float32
        assert is_the_same(found, expected[:size])
    sizes = [w.numel() for w in NETS[name]().state_dict().values()]
    on_bits = [w.numel() for w in NETS[name]().state_dict().values() if w.dim() == 4][1:]
    expected = BITS[name] * sum(on_bits) / 8 + 4 * (sum(sizes) - sum(on_bits))
    assert (artifact.directory / "model.bin").stat().st_size < 1.2 * expected


def test_what_gains_nothing_or_comes_out_wrong_stays_integers_with_a_remark(
    create, with_statistics, deploy
):
    torch.manual_seed(0)
    wrong = nn.Conv2d(64, 16, 5, stride=3, padding=2)  # by openvino 2026.4.1 at least
    net = Chain(wrong, nn.Conv2d(16, 64, 1), nn.Conv2d(64, 64, 3, padding=1))
    model = quantized(create, with_statistics(net).eval())
    artifact, runner = deploy(model)
    assert is_the_same(runner(X.numpy()), simulated(model))
    assert "BinaryConvolution" in kinds(artifact)
    engine, gain = artifact.remarks
    where = "runs on integers, not on bits:"
    assert engine.startswith(f"features.3 {where} openvino {openvino.__version__} gets its sums")
    assert gain.startswith(f"features.6 {where} a binary convolution gains from 32 products")


def test_a_network_that_the_engine_gets_wrong_stays_integers(
    create, with_statistics, deploy, monkeypatch
):
    # A sign on the sum itself: the engine fuses both into the convolution, and adds bits.
    monkeypatch.setattr(binary, "_is_sum", lambda graph, value: False)
    model = quantized(create, with_statistics(Residual()).eval())
    artifact, runner = deploy(model)
    (remark,) = artifact.remarks
    assert remark.endswith("the network on bits computes something else.")
    assert "BinaryConvolution" not in kinds(artifact)
    assert is_the_same(runner(X.numpy()), simulated(model))


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
        # Wider ones come out wrong on some processors, and stay integers there.
        pads=[draw(st.integers(0, extent // 2)) for extent in kernel * 2],
    )
    scale = np.ones(len(codes), np.float32)
    return binary.BinaryLayer(node, "layer", "x", [], codes.astype(np.int8), scale)


@given(layers())
@settings(max_examples=15, deadline=None)
def test_sums_are_exact_for_any_shape(layer):
    assert choosing.is_exact(layer)
