"""What was validated is what ships: engine and simulation agree."""

import attrs
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from torch import nn

X = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(4))


class Residual(nn.Module):
    """Convolutions, a residual addition, pooling and a linear layer, as in the deep nets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body, self.body_bn = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem_bn(self.stem(x)).relu(), 2)
        x = (x + self.body_bn(self.body(x))).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@attrs.frozen
class Deployed:
    """A model on both sides, and what one step of its outputs would be at its width."""

    model: nn.Module
    artifact: object
    runner: object
    bits: int

    def simulated(self, x):
        with torch.no_grad():
            return self.model(x).numpy()

    def error_in_steps(self, found, expected):
        return np.abs(found - expected).max() / (np.abs(expected).max() / 2 ** (self.bits - 1))


@pytest.fixture(scope="module")
def deploy(create, tmp_path_factory):
    """Prepares, calibrates, fuses, converts and exports a model, then loads the engine."""

    def run(model, **options):
        quantizer, backend = (
            create("quantizer", "iao", **options),
            create("deploy_backend", "onnxruntime"),
        )
        prepared = quantizer.prepare(model, (X[:2],))
        quantizer.calibrate(prepared, [X])
        fused = create("fuser", "bn").fuse(prepared, (X[:2],))
        converted = quantizer.convert(fused)
        artifact = backend.export(converted, (X[:2],), tmp_path_factory.mktemp("engine"))
        bits = min(quantizer.w_bits, quantizer.a_bits)
        return Deployed(converted, artifact, backend.load(artifact, threads=1), bits)

    return run


OPTIONS = {
    "asymmetric": {},
    "symmetric": {"a_symmetric": True},
    "per layer": {"per_channel": False},
    "asymmetric weights": {"w_symmetric": False},
    "4 bits": {"w_bits": 4, "a_bits": 4},
    "6 bits": {"w_bits": 6, "a_bits": 6, "a_symmetric": True},
    "12 bits": {"w_bits": 12, "a_bits": 12},
    "16 bits": {"w_bits": 16, "a_bits": 16, "a_symmetric": True},
}


@pytest.fixture(scope="module", params=OPTIONS)
def small(request, deploy, with_statistics):
    torch.manual_seed(0)
    return deploy(with_statistics(Residual()), **OPTIONS[request.param])


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_a_small_nets_engine_is_within_a_step_for_every_batch_size(small, batch):
    found = small.runner(X[:batch].numpy())
    expected = small.simulated(X[:batch])
    assert found.shape == (batch, 10)
    assert found.dtype == np.float32
    steps = 1.0
    if small.bits > 8:  # no step of 12 or 16 bits is worth a flip of a float's last bit
        steps = 2.0 ** (small.bits - 1) * 1e-3
    assert small.error_in_steps(found, expected) <= steps


def test_the_file_itself_computes_what_the_simulation_does(small):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(small.artifact.path, options)
    found, expected = session.run(None, {"input": X.numpy()})[0], small.simulated(X)
    # A bias is rounded to the steps of the products, a small part of one of the outputs.
    steps = 0.02 if small.bits <= 8 else 2.0 ** (small.bits - 1) * 1e-4
    assert small.error_in_steps(found, expected) <= steps


def test_layers_of_8_bits_or_less_run_on_integers(small):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(small.artifact.directory / "optimized.onnx")
    disabled = ["WeightBiasQuantization"]
    onnxruntime.InferenceSession(small.artifact.path, options, disabled_optimizers=disabled)
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    names = [node.op_type for node in nodes]
    assert names.count("QLinearConv") == (2 if small.bits <= 8 else 0)
    assert names.count("QGemm") == (1 if small.bits <= 8 else 0)


def pruned_resnet18(create):
    model = torchvision.models.resnet18(num_classes=10)
    return create("pruner", "normal", percent=0.5).prune(model, (X[:2],)).model


MODELS = {
    "nin": (lambda create: create("model", "nin").build(), {}),
    "nin_gc": (lambda create: create("model", "nin_gc").build(), {"a_symmetric": True}),
    "pruned resnet18": (pruned_resnet18, {}),
}


@pytest.fixture(scope="module", params=MODELS)
def deep(request, create, deploy, with_statistics):
    torch.manual_seed(0)
    build, options = MODELS[request.param]
    return deploy(with_statistics(build(create)), **options)


def test_a_deep_nets_engine_stays_within_a_few_steps(deep):
    found, expected = deep.runner(X.numpy()), deep.simulated(X)
    # Untrained weights amplify each flip of a rounding; trained ones are measured by recipes.
    assert deep.error_in_steps(found, expected) <= 6
    assert np.abs(found - expected).mean() <= 2 * np.abs(expected).max() / 128


@pytest.mark.parametrize("gamma", [0.0, 1e-6])
def test_channels_that_sparse_training_has_silenced_keep_their_bias(deploy, with_statistics, gamma):
    torch.manual_seed(0)
    model = with_statistics(Residual())
    with torch.no_grad():
        model.stem_bn.weight[0] = model.body_bn.weight[1] = gamma
        model.stem_bn.bias[0] = model.body_bn.bias[1] = 2.0
    deployed = deploy(model)
    found, expected = deployed.runner(X.numpy()), deployed.simulated(X)
    assert deployed.error_in_steps(found, expected) <= 1
