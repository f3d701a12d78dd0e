"""`wbwtab` with an 8-bit first and last layer."""

import numpy as np
import pytest
import torch
from torch import nn

from micronet.errors import RecipeError
from micronet.measure import activation_bits, weight_bits
from micronet.recipe import Calibrate, Deploy, Quantize, Recipe
from micronet.recipe.resolution import resolve

X = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """Three convolutions, between which ReLUs become signs, and a classifier."""

    def __init__(self, *, pooled: bool) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.body, self.bn2 = nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.wide, self.bn3 = nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64)
        self.pooled = pooled
        self.head = nn.Linear(64, 10) if pooled else nn.Conv2d(64, 10, 1)

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        x = self.bn2(self.body(x)).relu()
        x = self.bn3(self.wide(x)).relu()
        if self.pooled:
            return self.head(x.mean((2, 3)))
        return self.head(nn.functional.max_pool2d(x, 2)).mean((2, 3))


class Untraceable(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


@pytest.fixture
def quantizer(create):
    return create("quantizer", "wbwtab", first_and_last="int8")


@pytest.fixture(params=[True, False], ids=["pooled", "signs"])
def net(request, with_statistics):
    torch.manual_seed(0)
    return with_statistics(Net(pooled=request.param)).eval()


@pytest.fixture
def calibrated(quantizer, net):
    prepared = quantizer.prepare(net, (X[:2],))
    quantizer.calibrate(prepared, [X])
    return prepared


def simulated(model):
    with torch.no_grad():
        return model(X).numpy()


def is_the_same(found, expected):
    return np.allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("fusers", [(), ("bn",), ("binary_bn", "bn")], ids=str)
def test_onnxruntime_computes_what_the_simulation_does(
    create, quantizer, calibrated, tmp_path, fusers
):
    for name in fusers:
        calibrated = create("fuser", name).fuse(calibrated, (X[:2],))
    model = quantizer.convert(calibrated)
    backend = create("deploy_backend", "onnxruntime")
    runner = backend.load(backend.export(model, (X[:2],), tmp_path), threads=1)
    assert is_the_same(runner(X.numpy()), simulated(model))


@pytest.mark.parametrize("weights", ["binary", "ternary"])
def test_openvino_runs_the_ends_on_integers_and_the_others_on_bits(create, net, tmp_path, weights):
    pytest.importorskip("openvino", reason="openvino is not installed")
    from micronet_openvino.core import core

    quantizer = create("quantizer", "wbwtab", weights=weights, first_and_last="int8")
    prepared = quantizer.prepare(net, (X[:2],))
    quantizer.calibrate(prepared, [X])
    model = quantizer.convert(create("fuser", "bn").fuse(prepared, (X[:2],)))
    backend = create("deploy_backend", "openvino")
    artifact = backend.export(model, (X[:2],), tmp_path)
    assert artifact.remarks == ()
    found, expected = backend.load(artifact, threads=1)(X.numpy()), simulated(model)
    # Means of signs may lie in the middle between two codes, where engines round as they like.
    tolerance = 1 / 128 if net.pooled else 1e-5
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    network = core().read_model(artifact.path)
    network.reshape([2, *X.shape[1:]])
    engine = core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kernels = [
        operation.get_rt_info()["primitiveType"].astype(str)
        for operation in engine.get_runtime_model().get_ordered_ops()
        if operation.get_rt_info()["layerType"].astype(str)
        in ("Convolution", "BinaryConvolution", "FullyConnected")
    ]
    on_bits = 2 if weights == "binary" else 4
    assert [name.rpartition("_")[2] for name in kernels] == ["I8", *["u1"] * on_bits, "I8"]


def test_calibration_sees_what_the_binary_network_computes_and_moves_no_weight(quantizer, net):
    prepared = quantizer.prepare(net, (X[:2],))
    before = {name: p.detach().clone() for name, p in prepared.named_parameters()}
    quantizer.calibrate(prepared, [X])
    for name, parameter in prepared.named_parameters():
        assert torch.equal(parameter, before[name])
    read = []
    prepared.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    simulated(prepared)
    rounded = prepared.head.input_quantizer(read[0])
    if net.pooled:
        assert (rounded - read[0]).abs().max() < 1 / 128  # means of signs, within -1 and 1
    else:
        assert read[0].unique().tolist() == [-1, 1]
        assert torch.allclose(rounded, read[0], rtol=1e-6)


def test_most_bits_are_single_ones(calibrated):
    assert (weight_bits(calibrated), activation_bits(calibrated)) == (1, 1)


def test_a_model_that_can_not_be_traced_has_both_ends_quantized(quantizer):
    prepared = quantizer.prepare(Untraceable(pooled=False).eval(), (X[:2],))
    quantizer.calibrate(prepared, [X])
    for layer in (prepared.stem, prepared.head):
        assert (layer.weight_quantizer.bits, layer.input_quantizer.bits) == (8, 8)
    assert prepared(X).isfinite().all()


def test_ends_in_float_need_no_data(create, net):
    quantizer = create("quantizer", "wbwtab")
    assert not quantizer.needs_data
    prepared = quantizer.prepare(net, (X[:2],))
    assert prepared(X).isfinite().all()
    assert type(prepared.stem) is nn.Conv2d


def recipe(*between, backend):
    steps = (Quantize("wbwtab", {"first_and_last": "int8"}), *between, Deploy(backend))
    return Recipe(model="nin", data="digits", steps=steps)


def test_a_recipe_must_bring_data_before_it_deploys():
    with pytest.raises(RecipeError, match=r"steps.1.deploy: deploy needs a train or calibrate"):
        resolve(recipe(backend="onnxruntime"))
    assert resolve(recipe(Calibrate(), backend="onnxruntime")).remarks == ()


def test_tensorrt_is_told_to_be_unsuitable_before_any_training():
    with pytest.raises(RecipeError, match=r"TensorRT computes on .* not on asymmetric activations"):
        resolve(recipe(Calibrate(), backend="tensorrt"), here=False)
