"""The backend `tensorrt` where there is neither TensorRT nor a GPU: its graphs, files and words."""

import re
import subprocess
import sys
from importlib.util import find_spec

import attrs
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from micronet_tensorrt.engine_file import EngineFile, Platform
from micronet_tensorrt.profile import Profile
from torch import nn

from micronet.errors import DeployError, OptionError, RecipeError
from micronet.recipe import Deploy, Quantize, Recipe, Train
from micronet.recipe.resolution import resolve
from micronet.structure import Nest
from micronet.techniques import Artifact, Scheme, Signature, TensorSpec

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
without_tensorrt = pytest.mark.skipif(
    find_spec("tensorrt") is not None, reason="TensorRT is installed"
)


class Net(nn.Module):
    """A residual addition, a depthwise, a grouped and a transposed convolution, a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem(x).relu(), 2)
        x = (x + self.grouped(self.depthwise(x).relu())).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(self.up(x), 1).flatten(1))


def net():
    torch.manual_seed(0)
    return Net().eval()


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3))


@pytest.fixture(scope="module")
def quantized(create):
    """Gives a model as a quantizer makes it."""

    def make(model, name, **options):
        quantizer = create("quantizer", name, **options)
        prepared = quantizer.prepare(model, (X,))
        if quantizer.needs_data:
            quantizer.calibrate(prepared, [X])
        return quantizer.convert(prepared)

    return make


@attrs.frozen
class Written:
    model: nn.Module
    graph: onnx.ModelProto
    remarks: tuple[str, ...]

    def run(self, x):
        onnx.checker.check_model(self.graph, full_check=True)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(self.graph.SerializeToString(), options)
        return session.run(None, {"input": x.numpy()})[0]

    def simulated(self, x):
        with torch.no_grad():
            return self.model(x).numpy()

    def operators(self):
        return {node.op_type for node in self.graph.graph.node}

    def weight_of(self, operator):
        """What writes the weight of the only node of an operator; `None` for a constant."""
        (node,) = (node for node in self.graph.graph.node if node.op_type == operator)
        writers = {name: n.op_type for n in self.graph.graph.node for name in n.output}
        return writers.get(node.input[1])


@pytest.fixture(scope="module")
def write(create, tmp_path_factory):
    def to_graph(model, dynamic=("batch",), **options):
        path = tmp_path_factory.mktemp("graph") / "net.onnx"
        backend = create("deploy_backend", "tensorrt", **options)
        remarks = backend.write_graph(model, (X,), path, dynamic=dynamic)
        return Written(model, onnx.load(path), remarks)

    return to_graph


@pytest.fixture(scope="module")
def integers(write, quantized):
    return write(quantized(net(), "iao", target="tensorrt"), max_batch=8, best_batch=4)


@pytest.fixture(scope="module")
def binary(write, quantized):
    return write(quantized(convolutions(), "wbwtab"))


def test_the_graph_computes_what_the_simulation_does(integers, binary):
    for written in (integers, binary):
        found, expected = written.run(X), written.simulated(X)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_activations_are_signed_and_layers_keep_their_integers(integers):
    types = {
        constant.data_type
        for constant in integers.graph.graph.initializer
        if constant.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64)
    }
    assert types == {onnx.TensorProto.INT8}
    assert integers.weight_of("Gemm") == "DequantizeLinear"


def test_a_transposed_convolution_gets_its_weights_as_real_numbers_and_a_remark_says_why(integers):
    assert integers.weight_of("ConvTranspose") is None
    (remark,) = (remark for remark in integers.remarks if "In float" in remark)
    assert remark.startswith("In float: up. TensorRT's integer kernel takes the scales")


def test_layers_that_the_quantizer_left_in_float_are_named(binary):
    assert binary.remarks[0] == "In float: 0, 3. The quantizer has left their weights so."


def test_the_line_for_trtexec_tells_the_same_shapes(integers):
    assert integers.remarks[-1].endswith(
        "trtexec --onnx=net.onnx --stronglyTyped --saveEngine=net.plan "
        "--minShapes=input:1x3x16x16 --optShapes=input:4x3x16x16 --maxShapes=input:8x3x16x16"
    )


class TwoInputs(nn.Module):
    """Images and a number for each, a map and a row for each."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)

    def forward(self, image, gate):
        x = self.stem(image) * gate[:, :, None, None]
        return {"map": x, "rows": (x.mean((2, 3)), gate + 1)}


def test_a_graph_of_several_inputs_has_a_profile_for_each(create, tmp_path):
    backend = create("deploy_backend", "tensorrt", max_batch=4)
    path = tmp_path / "net.onnx"
    remarks = backend.write_graph(TwoInputs().eval(), (X, torch.ones(4, 4)), str(path))
    assert remarks[-1].endswith(
        "--minShapes=image:1x3x16x16,gate:1x4 --optShapes=image:1x3x16x16,gate:1x4 "
        "--maxShapes=image:4x3x16x16,gate:4x4"
    )
    session = onnxruntime.InferenceSession(path)
    assert [tensor.name for tensor in session.get_outputs()] == ["map", "rows_0", "rows_1"]


def test_in_float16_the_whole_graph_is_so(write):
    half = write(convolutions(), dynamic=(), precision="fp16", workspace_mb=64)
    assert onnx.TensorProto.FLOAT16 in {c.data_type for c in half.graph.graph.initializer}
    found, expected = half.run(X), half.simulated(X)
    assert 0 < np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max()
    (remark,) = half.remarks
    assert remark.endswith("--saveEngine=net.plan --memPoolSize=workspace:64")


def test_a_model_that_tensorrt_would_refuse_leaves_no_file(create, quantized, tmp_path):
    backend = create("deploy_backend", "tensorrt")
    with pytest.raises(DeployError, match=r"DequantizeLinear '2.weight_quantizer'") as caught:
        backend.write_graph(quantized(convolutions(), "dorefa"), (X,), tmp_path / "net.onnx")
    assert "uint8" in str(caught.value)
    assert str(caught.value).endswith("Quantize with {quantizer: iao, target: tensorrt}.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scheme", "culprit"),
    [
        (Scheme(), "asymmetric activations"),
        (Scheme(w_symmetric=False, a_symmetric=True), "asymmetric weights"),
        (Scheme(w_bits=16, a_symmetric=True), "16-bit weights"),
        (Scheme(a_bits=12), "asymmetric activations and 12-bit activations"),
    ],
)
def test_a_scheme_that_it_can_not_run_is_refused_with_what_to_write(create, scheme, culprit):
    told = create("deploy_backend", "tensorrt").unsuitable(scheme)
    assert f"not on {culprit}; write quantize: {{quantizer: iao, target: tensorrt}}." in told
    assert create("deploy_backend", "tensorrt", precision="fp16").unsuitable(scheme) is None


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(a_symmetric=True),
        Scheme(a_symmetric=True, per_channel=False),
        Scheme(w_bits=4, a_bits=4, a_symmetric=True),
        Scheme(a_bits=32),
    ],
)
def test_a_scheme_that_it_can_run_is_taken(create, scheme):
    assert create("deploy_backend", "tensorrt").unsuitable(scheme) is None


def recipe(**options):
    steps = (Quantize("iao", options), Train(), Deploy("tensorrt"))
    return Recipe(model="nin", data="digits", steps=steps)


@without_tensorrt
def test_validate_refuses_what_no_tensorrt_runs_and_says_what_is_missing_here():
    with pytest.raises(RecipeError) as caught:
        resolve(recipe(), here=False)
    told = str(caught.value)
    assert told.startswith("steps.2.deploy.backend: TensorRT computes on signed integers")
    assert "target: tensorrt}. tensorrt can't run here: tensorrt is not installed; pip" in told


@without_tensorrt
def test_a_recipe_for_another_machine_is_valid_and_can_not_run_here():
    (remark,) = resolve(recipe(target="tensorrt"), here=False).remarks
    assert remark.startswith("tensorrt can't run here: tensorrt is not installed; pip install")
    with pytest.raises(RecipeError, match=r"steps.2.deploy.backend: tensorrt can't run here"):
        resolve(recipe(target="tensorrt"))


@without_tensorrt
def test_an_export_says_what_is_missing_and_leaves_nothing(create, tmp_path):
    with pytest.raises(DeployError, match=r"pip install 'micronet\[tensorrt\]'"):
        create("deploy_backend", "tensorrt").export(nn.Conv2d(3, 4, 3), (X,), tmp_path / "engine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 4, "best_batch": 8}, "best_batch must be at most max_batch, 4, got 8"),
        ({"min_size": (0, 16)}, "min_size must hold numbers of at least 1"),
        ({"precision": "int4"}, "precision must be one of"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(create, options, message):
    with pytest.raises(OptionError, match=message):
        create("deploy_backend", "tensorrt", **options)


def spec(dynamic=("batch",)):
    shape = [("batch", 4), (None, 3), ("height", 16), ("width", 24)]
    sizes = [name if name in dynamic else size for name, size in shape]
    return TensorSpec("image", "float32", sizes, [size for _, size in shape])


def profile(dynamic=("batch",), **changes):
    options = {"best_batch": 2, "max_batch": 8, "min_size": None, "max_size": None, **changes}
    return Profile.around(spec(dynamic), **options)


def test_dimensions_that_are_not_dynamic_are_the_examples():
    assert profile() == Profile((1, 3, 16, 24), (2, 3, 16, 24), (8, 3, 16, 24))
    assert not profile(()).dynamic
    wide = profile(("height", "width"), min_size=(8, 24))
    assert wide == Profile((4, 3, 8, 24), (4, 3, 16, 24), (4, 3, 32, 48))


def test_a_number_has_a_profile_too():
    options = {"best_batch": 2, "max_batch": 8, "min_size": None, "max_size": None}
    number = Profile.around(TensorSpec("count", "int64", (), ()), **options)
    assert not number.dynamic
    assert number.why_not(TensorSpec("count", "int64", (), ()), ()) is None


def test_sizes_that_leave_the_example_out_are_refused():
    with pytest.raises(DeployError, match=r"width of 24 lies outside .* 1 to 20"):
        profile(("height", "width"), min_size=(1, 1), max_size=(20, 20))


def test_images_of_another_size_are_refused_with_those_that_fit():
    wide, image = profile(("batch", "width")), spec(("batch", "width"))
    assert wide.why_not(image, (99, 3, 16, 48)) is None
    assert wide.why_not(image, (1, 3, 16, 49)) == (
        "The engine takes 'image' of 3x16x12-48 for each image, got 3x16x49."
    )


@pytest.mark.parametrize(
    ("count", "pieces"),
    [(0, [(0, 0)]), (1, [(0, 1)]), (8, [(0, 8)]), (17, [(0, 8), (8, 16), (16, 17)])],
)
def test_a_batch_above_the_largest_runs_in_pieces(count, pieces):
    assert list(profile().pieces(count)) == pieces


HERE = Platform("11.4.0", "NVIDIA RTX A4000", "8.6")
FILE = EngineFile(HERE, {"image": profile()}, b"a plan" * 100)
SIGNATURE = Signature(
    Nest("tuple", ["x"], [spec()]), TensorSpec("output", "float32", ("batch", 10), (4, 10))
)


@pytest.fixture
def path(tmp_path):
    FILE.write(tmp_path / "model.engine")
    return tmp_path / "model.engine"


def test_an_engines_file_is_read_back(path):
    assert EngineFile.read(path) == FILE


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-1], "damaged: its plan is not the one that was written"),
        (lambda content: content.replace(b"plana", b"plant", 1), "damaged: its plan"),
        (lambda content: content.replace(b'"gpu"', b'"cpu"'), "damaged: its header"),
        (lambda content: content[:30], "damaged: its header"),
        (lambda content: b"ftrt" + content, "no engine that micronet wrote"),
        (lambda content: b"", "no engine that micronet wrote"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_before_tensorrt_sees_it(create, path, damage, words):
    path.write_bytes(damage(path.read_bytes()))
    artifact = Artifact(path.parent, "tensorrt", path.name, SIGNATURE, "TensorRT")
    with pytest.raises(DeployError, match=words) as caught:
        create("deploy_backend", "tensorrt").load(artifact)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused_in_words(create, tmp_path):
    artifact = Artifact(tmp_path, "tensorrt", "model.engine", SIGNATURE, "TensorRT")
    with pytest.raises(DeployError, match=r"model.engine can't be read: No such file"):
        create("deploy_backend", "tensorrt").load(artifact)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensorrt": "10.16.1"}, r"built with TensorRT 11.4.0, here is 10.16.1.*Deploy the model"),
        ({"compute_capability": "9.0"}, r"compute capability 8.6, here is .* with 9.0"),
    ],
)
def test_a_plan_of_another_platform_is_refused_in_words(change, words):
    assert re.search(words, HERE.why_not(attrs.evolve(HERE, **change)))


def test_a_plan_runs_where_it_was_built():
    assert HERE.why_not(HERE) is None


SERVE = """
import pathlib, sys
from micronet import registry
from micronet.errors import DeployError
from micronet.techniques import Artifact
import micronet_tensorrt.runner

artifact = Artifact(pathlib.Path(sys.argv[1]), "tensorrt", "model.engine", None, "-")
try:
    registry.create("deploy_backend", "tensorrt").load(artifact)
except DeployError as error:
    print(error)
assert not {"torch", "onnx"} & set(sys.modules)
"""


@without_tensorrt
def test_loading_asks_for_tensorrt_and_never_for_torch(path):
    command = [sys.executable, "-c", SERVE, str(path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tensorrt is not installed; pip install 'micronet[tensorrt]'" in done.stdout
