"""What the ONNX file says."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from micronet.deployment.export import export_onnx
from micronet.errors import DeployError, MicronetError, OptionError
from micronet.registry import create

X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


@pytest.fixture(scope="module")
def prepared():
    quantizer = create("quantizer", "iao")
    model = quantizer.prepare(net(), (X,))
    quantizer.calibrate(model, [X])
    return model.train()


@pytest.fixture(scope="module")
def path(prepared, tmp_path_factory):
    """An 8-bit model, exported in training mode, whose height and width may vary."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(prepared, (X[:1],), path, dynamic=("batch", "height", "width"))
    return path


@pytest.fixture(scope="module")
def file(path):
    return onnx.load(path)


def run(path, x, *, optimized=True):
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options)
    return session.run(["output"], {"input": x.numpy()})[0]


def test_the_file_names_no_file_of_this_machine(path):
    assert b".py" not in path.read_bytes()


def test_the_file_is_valid_and_of_the_opset_that_knows_16_bit_codes(file):
    onnx.checker.check_model(file, full_check=True)
    assert {(entry.domain, entry.version) for entry in file.opset_import} == {("", 21)}


def test_each_quantized_activation_is_one_quantize_and_one_dequantize(file):
    kinds = [node.op_type for node in file.graph.node]
    assert kinds.count("QuantizeLinear") == 4
    assert kinds.count("DequantizeLinear") == 4 + 3
    assert not {"Clip", "Cast", "Round", "Div"} & set(kinds)


def test_weights_are_integers_and_none_is_left_in_float(file):
    large = {
        tuple(tensor.dims): tensor.data_type
        for tensor in file.graph.initializer
        if len(tensor.dims) > 1
    }
    shapes = [(32, 3, 3, 3), (64, 32, 3, 3), (10, 64)]
    assert large == dict.fromkeys(shapes, TensorProto.INT8)


def test_the_integers_are_the_converted_models(file, prepared):
    stored = {tuple(t.dims): numpy_helper.to_array(t) for t in file.graph.initializer}
    codes = create("quantizer", "iao").convert(prepared).get_submodule("4").weight_quantizer.codes
    assert np.array_equal(stored[64, 32, 3, 3], codes.numpy())


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 16, 16), (5, 24, 17), (1, 9, 40)], ids=str)
def test_batch_height_and_width_may_differ_from_the_examples(path, prepared, shape):
    batch, height, width = shape
    x = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    expected = create("quantizer", "iao").convert(prepared)(x).detach().numpy()
    found = run(path, x, optimized=False)
    assert np.allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_exporting_leaves_the_model_in_training(path, prepared):
    assert path.exists()
    assert all(module.training for module in prepared.modules())
    assert prepared.get_submodule("0").weight.requires_grad


def test_an_unknown_dimension_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(OptionError, match=r"'hight'.*Did you mean 'height'.*batch, height, width"):
        export_onnx(net(), (X,), tmp_path / "model.onnx", dynamic=("batch", "hight"))
    assert list(tmp_path.iterdir()) == []


class ForSquares(nn.Module):
    """Refuses what it is given."""

    def forward(self, x):
        message = f"only squares of 8, not of {x.shape[-1]}"
        raise ValueError(message)


def test_a_model_that_cannot_be_exported_is_refused_with_the_cause(tmp_path):
    with pytest.raises(DeployError, match="ForSquares can't be exported") as caught:
        export_onnx(ForSquares(), (X,), tmp_path / "model.onnx")
    assert "only squares of 8, not of 16" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_saw_no_data_is_refused_with_what_to_do(tmp_path):
    model = create("quantizer", "iao").prepare(net(), (X,))
    with pytest.raises(MicronetError, match="seen no data"):
        export_onnx(model, (X,), tmp_path / "model.onnx")


def test_a_folder_that_is_not_there_is_an_ordinary_file_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        export_onnx(nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "no" / "m.onnx")
