"""What ONNX Runtime makes of our files: integer kernels where it has them, float ones elsewhere."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from micronet.errors import DeployError

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(4))


class Varied(nn.Module):
    """What stands in the way of integer kernels, or seems to: narrow groups, a split and a
    concatenation, a nonlinearity right behind a convolution, and pooling by a mean.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.narrow = nn.Conv2d(32, 32, 3, padding=1, groups=8)
        self.changed = nn.Conv2d(16, 16, 1)
        self.smooth = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = nn.functional.relu6(self.narrow(self.stem(x).relu()))
        kept, changed = nn.functional.max_pool2d(x, 2).chunk(2, 1)
        x = torch.cat([self.changed(changed).relu(), kept], 1)
        x = nn.functional.hardswish(self.smooth(x))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Binary(nn.Module):
    """A float convolution, binary ones with a pooling between them, and a float one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
            nn.MaxPool2d(2),
            *(nn.Conv2d(24, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="module")
def simulated(create):
    """`Varied` with 8-bit integers."""
    torch.manual_seed(0)
    quantizer = create("quantizer", "iao")
    prepared = quantizer.prepare(Varied(), (X,))
    quantizer.calibrate(prepared, [X])
    return quantizer.convert(prepared)


@pytest.fixture(scope="module")
def export(create, tmp_path_factory):
    def run(model, **options):
        backend = create("deploy_backend", "onnxruntime", **options)
        artifact = backend.export(model, (X,), tmp_path_factory.mktemp("engine"))
        return artifact, backend.load(artifact, threads=1)(X.numpy())

    return run


@pytest.fixture(scope="module")
def deployed(export, simulated):
    return export(simulated)


def outputs(model):
    with torch.no_grad():
        return model(X).numpy()


def kernels(artifact):
    """How many of each operation the engine is left with."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    optimized = artifact.directory / "optimized.onnx"
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(
        artifact.path, options, disabled_optimizers=["WeightBiasQuantization"]
    )
    graph = onnx.load(optimized).graph
    optimized.unlink()
    return Counter(node.op_type for node in graph.node)


def test_layers_run_on_integers_whatever_moves_or_cuts_between_them(deployed):
    found = kernels(deployed[0])
    assert found["QLinearConv"] == 3  # all but the one before the nonlinearity
    assert found["QGemm"] == 1
    assert found["MaxPool"] + found["NhwcMaxPool"] == 1


def test_a_layer_without_an_integer_kernel_is_named_and_has_its_weight_from_the_start(deployed):
    artifact, _ = deployed
    (remark,) = artifact.remarks
    assert remark == (
        "onnxruntime computes 'smooth' in float, for want of an integer kernel: what it gives is "
        "not quantized before it is read."
    )
    # Its input, what the pooling reads, and no weight.
    assert kernels(artifact)["DequantizeLinear"] == 2


def test_weights_are_stored_as_bytes_and_each_tensor_is_quantized_once(deployed):
    graph = onnx.load(deployed[0].path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    large = [t for t in graph.initializer if np.prod(t.dims) > 32]
    assert {t.data_type for t in large} == {onnx.TensorProto.INT8}
    assert (32, 16, 3, 3) in shapes.values()  # eight groups of four channels are two of sixteen
    sources = [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(sources) == len(set(sources)) == 7


def test_the_engine_stays_within_a_step_of_the_simulation(deployed, simulated):
    expected = outputs(simulated)
    assert np.abs(deployed[1] - expected).max() <= np.abs(expected).max() / 128


def test_binary_layers_run_on_integers_and_are_exact(create, export, with_statistics):
    torch.manual_seed(0)
    quantizer = create("quantizer", "wbwtab")
    prepared = quantizer.prepare(with_statistics(Binary()), (X,)).eval()
    model = quantizer.convert(create("fuser", "bn").fuse(prepared, (X,)))
    artifact, found = export(model)
    assert np.allclose(found, outputs(model), atol=1e-5)
    assert kernels(artifact)["QLinearConv"] == 2
    assert artifact.remarks == ()


@pytest.fixture(scope="module")
def dorefa(create, export, with_statistics):
    """`Binary` with DoReFa's grids, as simulated and as deployed."""

    def run(bits):
        torch.manual_seed(0)
        quantizer = create("quantizer", "dorefa", w_bits=bits, a_bits=bits)
        prepared = quantizer.prepare(with_statistics(Binary()), (X,)).eval()
        model = quantizer.convert(create("fuser", "bn").fuse(prepared, (X,)))
        return outputs(model), *export(model)

    return run


def test_weights_of_more_than_8_bits_are_computed_in_float(dorefa):
    expected, artifact, found = dorefa(8)
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)
    (remark,) = artifact.remarks
    assert "'layers.3', 'layers.7', 'layers.10' in float" in remark
    assert "does not fit 8-bit integers" in remark


def test_a_narrow_grid_behind_a_pooling_leaves_the_layer_before_on_integers(dorefa):
    expected, artifact, found = dorefa(4)
    assert np.abs(found - expected).max() <= np.abs(expected).max() / 8
    assert kernels(artifact)["QLinearConv"] == 2
    (remark,) = artifact.remarks
    assert "computes 'layers.10' in float" in remark


@pytest.mark.parametrize(("precision", "type_"), [("fp32", "FLOAT"), ("fp16", "FLOAT16")])
def test_a_quantized_model_runs_in_floats(export, simulated, precision, type_):
    artifact, found = export(simulated, precision=precision)
    expected = outputs(simulated)
    assert np.abs(found - expected).mean() <= 2 * np.abs(expected).max() / 128
    stored = {t.data_type for t in onnx.load(artifact.path).graph.initializer if len(t.dims) > 1}
    assert stored == {getattr(onnx.TensorProto, type_)}


def test_the_faster_form_is_taken_and_said(export, simulated):
    artifact, found = export(simulated, precision="auto")
    as_quantized = artifact.remarks[-1].startswith("Left as quantized: a call took ")
    assert as_quantized or artifact.remarks[0].startswith("Written in fp32: a call took ")
    quantizes = any(n.op_type == "QuantizeLinear" for n in onnx.load(artifact.path).graph.node)
    assert quantizes == as_quantized
    assert np.abs(found - outputs(simulated)).mean() <= 0.02


def test_a_float_model_is_no_int8_model_but_the_measure_of_one(create, tmp_path):
    backend = create("deploy_backend", "onnxruntime", precision="int8")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    with pytest.raises(DeployError, match="not quantized, so no int8 can come of it"):
        backend.export(model, (X,), tmp_path)
    backend.for_float().export(model, (X,), tmp_path)
