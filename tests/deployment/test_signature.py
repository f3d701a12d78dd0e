"""Several inputs and outputs, in any structure, on the engines; and what does not fit."""

import collections
import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from micronet import registry, structure
from micronet.deployment.export import export_onnx
from micronet.deployment.flat_model import signature_of
from micronet.errors import DeployError, MicronetError
from micronet.techniques import Artifact, Signature

BACKENDS = [
    name
    for name in ("onnxruntime", "openvino")
    if registry.create("deploy_backend", name).available() is None
]
Pair = collections.namedtuple("Pair", ["first", "second"])  # noqa: PYI024 (as models have it)


@dataclasses.dataclass
class Found:
    boxes: torch.Tensor
    labels: torch.Tensor | None


def tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Everything(nn.Module):
    """Nested inputs, some of them unused; names that its own parameters and outputs have too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv2d = nn.Conv2d(3, 4, 3, padding=1)
        self.image = nn.Parameter(torch.ones(4))

    def forward(self, image, more, count, scale=None, *, bias=1.0):
        x = self.conv2d(image) * self.image[:, None, None] + more["gates"][0] + bias
        return collections.OrderedDict(
            out=x,
            aux=(x.mean((2, 3)), more["table"].sum(1), None),
            image=image,
            again=x,
            conv2d=count + 1,
            constant=self.image * 2,
            places=x.argmax(1),
            pair=Pair(x[:, :1], image > 0),
            found=[Found(x.amax((2, 3)), None)],
        )


def everything(batch, height=8, width=8):
    more = {
        "gates": [tensor(batch, 4, 1, 1, seed=1)],
        "table": tensor(5, 2),
        "unused": torch.zeros(3, dtype=torch.bool),
    }
    return tensor(batch, 3, height, width), more, torch.tensor(7)


def as_numpy(value):
    """A nested value of tensors with arrays in their places."""
    tree = structure.nest(value)
    arrays = (each.detach().numpy() for each in structure.leaves(tree))
    return structure.build(structure.with_leaves(tree, arrays))


def same(found, expected, tolerance=1e-5):
    """Whether two nested values are alike in structure, types and numbers."""
    trees = structure.nest(found), structure.nest(as_numpy(expected))
    blank = [structure.with_leaves(tree, iter([0] * 99)) for tree in trees]
    assert blank[0] == blank[1]
    for one, two in zip(*map(structure.leaves, trees), strict=True):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert np.allclose(one, two, atol=tolerance)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return registry.create("deploy_backend", request.param)


@pytest.fixture(scope="module")
def deployed(backend, tmp_path_factory):
    """Exported with a batch of one, whose batch, height and width are free."""
    folder = tmp_path_factory.mktemp("several")
    dynamic = ("batch", "height", "width")
    backend.export(Everything().eval(), everything(1), str(folder / "it"), dynamic=dynamic)
    return Artifact.read(folder / "it")


@pytest.fixture(scope="module")
def runner(backend, deployed):
    return backend.load(str(deployed.directory))


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 12, 10), (2, 7, 9)])
def test_it_takes_and_gives_what_the_model_does_at_any_size(runner, size):
    inputs = everything(*size)
    for _ in range(3):  # an engine may have another graph for shapes that come again
        same(runner(*as_numpy(inputs)), Everything().eval()(*inputs))


def test_the_card_names_every_tensor_and_its_free_dimensions(deployed):
    signature = deployed.signature
    assert {spec.name: str(spec) for spec in signature.input_specs} == {
        "image": "float32 [batch, 3, height, width]",
        "more.gates_0": "float32 [batch, 4, 1, 1]",
        "more.table": "float32 [5, 2]",
        "more.unused": "bool [3]",
        "count": "int64 []",
    }
    assert {spec.name: str(spec) for spec in signature.output_specs} == {
        "out": "float32 [batch, 4, height, width]",
        "aux_0": "float32 [batch, 4]",
        "aux_1": "float32 [5]",
        "output.image": "float32 [batch, 3, height, width]",
        "again": "float32 [batch, 4, height, width]",
        "conv2d": "int64 []",
        "constant": "float32 [4]",
        "places": "int64 [batch, height, width]",
        "pair.first": "float32 [batch, 1, height, width]",
        "pair.second": "bool [batch, 3, height, width]",
        "found_0.boxes": "float32 [batch, 4]",
    }
    assert deployed.input_shape == (1, 3, 8, 8)


def test_a_signature_survives_json(deployed):
    signature = deployed.signature
    assert Signature.from_json(json.dumps(json.loads(signature.to_json()))) == signature


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", BACKENDS)
def test_so_it_is_at_other_precisions(name, precision, tmp_path):
    backend = registry.create("deploy_backend", name, precision=precision)
    model, inputs = Everything().eval(), everything(2)
    runner = backend.load(backend.export(model, inputs, tmp_path))
    found, expected = runner(*as_numpy(inputs)), model(*inputs)
    assert list(found) == list(expected)
    for key in ("out", "image", "constant"):
        assert np.allclose(found[key], expected[key].detach(), atol=2e-2)


def test_what_is_quantized_has_all_its_outputs_too(backend, tmp_path):
    class Ends(nn.Module):
        """Layers whose numbers are both quantized for the next one and given out."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            first = self.one(x)
            second = torch.relu(first)
            third = self.two(second)
            pooled = nn.functional.max_pool2d(third, 4).mean((2, 3))
            return {"first": first, "second": second, "third": third, "logits": self.head(pooled)}

    x = tensor(4, 3, 12, 12)
    quantizer = registry.create("quantizer", "dorefa", w_bits=8, a_bits=8)
    model = quantizer.convert(quantizer.prepare(Ends().eval(), (x,)))
    runner = backend.load(backend.export(model, (x,), tmp_path))
    found, expected = runner(x.numpy()), as_numpy(model(x))
    for name, values in expected.items():
        # An 8-bit kernel may take the next code where a sum lies between two.
        assert np.abs(found[name] - values).mean() <= 0.02 * np.ptp(values), name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda i, m, c: (i, m), r"The model takes 3 inputs \(image: float32 .*\), got 2\."),
        (
            lambda i, m, c: (i.astype(np.float64), m, c),
            r"Input 'image' must be float32 \[batch, 3, height, width\], got float64 \[2, 3, 8,",
        ),
        (lambda i, m, c: (i[0], m, c), r"Input 'image' must be .*, got float32 \[3, 8, 8\]\."),
        (lambda i, m, c: (i[:, :2], m, c), r"Input 'image' must be .*, got .* \[2, 2, 8, 8\]\."),
        (
            lambda i, m, c: (i[:1], m, c),
            r"Input 'more.gates_0' must be .* with batch 1 as in 'image', got .* \[2, 4, 1, 1\]",
        ),
        (lambda i, m, c: (i, m, 7), r"Input 'count' must be a numpy array, int64 \[\], got an int"),
        (lambda i, m, c: (i, {}, c), r"Input 'more' must be a dict of gates, table, unused, got"),
        (
            lambda i, m, c: (i, {**m, "gates": []}, c),
            r"Input 'more.gates' must be a list of 1, got a list of 0\.",
        ),
        (
            lambda i, m, c: (i, {**m, "table": m["table"][:3]}, c),
            r"Input 'more.table' must be float32 \[5, 2\], got float32 \[3, 2\]\.",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(runner, change, sentence):
    with pytest.raises(DeployError, match=sentence):
        runner(*change(*as_numpy(everything(2))))


class TwoTowers(nn.Module):
    """Its inputs have nothing to do with each other."""

    def forward(self, left, right):
        return left * 2, right + 1


def test_inputs_that_share_no_batch_may_differ_in_it(backend, tmp_path):
    artifact = backend.export(TwoTowers(), (tensor(2, 3), tensor(2, 4)), tmp_path)
    left, right = artifact.signature.input_specs
    assert (left.shape, right.shape) == (("batch", 3), ("batch_1", 4))
    found = backend.load(artifact)(np.ones((5, 3), np.float32), np.ones((7, 4), np.float32))
    assert isinstance(found, tuple)
    assert [each.shape for each in found] == [(5, 3), (7, 4)]


class Anchored(nn.Module):
    """Has a row of its own for each row of a table."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.ones(1, 2))

    def forward(self, image, table):
        return image.mean((2, 3)), torch.cat([table, self.rows]).reshape(4)


def test_a_table_of_one_row_that_is_no_batch_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "m.onnx"
    remedy = "'image', 'table' were taken for batches of one image; .*a batch of two or more"
    with pytest.raises(DeployError, match=rf"Anchored can't be exported: .*{remedy}"):
        export_onnx(Anchored(), (tensor(1, 3, 8, 8), tensor(1, 2)), path)
    export_onnx(Anchored(), (tensor(2, 3, 8, 8), tensor(1, 2)), path)


def test_an_engine_takes_its_inputs_by_name_too(tmp_path):
    backend = registry.create("deploy_backend", "onnxruntime")
    engine = backend.load(backend.export(TwoTowers(), (tensor(2, 3), tensor(2, 4)), tmp_path))
    left, right = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    for found in (engine(right=right, left=left), engine(left, right=right)):
        assert [each.shape for each in found] == [(2, 3), (2, 4)]
    with pytest.raises(DeployError, match=r"The model takes 2 inputs .* got 'top' beside them"):
        engine(left, right, top=right)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_in_a_type_that_engines_lack_is_refused(dtype, tmp_path):
    model = nn.Conv2d(3, 4, 3).to(dtype)
    with pytest.raises(DeployError, match=r"'weight' is \w+, which engines don't compute in"):
        export_onnx(model, (tensor(2, 3, 8, 8).to(dtype),), tmp_path / "m.onnx")


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.conv(x).float()


def test_a_model_under_autocast_is_refused(tmp_path):
    with pytest.raises(DeployError, match="Autocast computes in bfloat16, as under autocast"):
        export_onnx(Autocast(), (tensor(2, 3, 8, 8),), tmp_path / "m.onnx")


class One(nn.Module):
    def forward(self, x):
        return x * 2


def test_a_single_tensor_stays_input_and_output_also_as_text_path(tmp_path):
    export_onnx(One(), (tensor(1, 3),), str(tmp_path / "m.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    ((given,), (got,)) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("input", ["batch", 3])
    assert (got.name, got.shape) == ("output", ["batch", 3])


def test_the_file_itself_says_names_types_and_free_sizes(tmp_path):
    path = tmp_path / "m.onnx"
    dynamic = ("batch", "height", "width")
    export_onnx(Everything().eval(), everything(1), path, dynamic=dynamic)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    shapes = {each.name: (each.type, each.shape) for each in session.get_inputs()}
    assert shapes["image"] == ("tensor(float)", ["batch", 3, "height", "width"])
    assert shapes["more.unused"] == ("tensor(bool)", [3])
    assert shapes["count"] == ("tensor(int64)", [])
    places = next(each for each in session.get_outputs() if each.name == "places")
    assert (places.type, places.shape) == ("tensor(int64)", ["batch", "height", "width"])


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (lambda x: (x, x.shape[0]), "its output 'output_1' is an int, where engines give tensors"),
        (lambda _: None, "it gives no tensor"),
        (lambda x: {"half": x.bfloat16()}, "'half' is bfloat16, which numpy does not have"),
    ],
)
def test_what_no_engine_can_give_is_refused(outputs, sentence, tmp_path):
    model = One()
    model.forward = outputs
    with pytest.raises(DeployError, match=sentence):
        export_onnx(model, (tensor(2, 3),), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((tensor(2, 3), [1.0]), "got float in it"),
        (((),), "got none in it"),
        ({"x": tensor(2, 3)}, "got dict"),
    ],
)
def test_examples_that_are_no_tensors_are_refused(inputs, words, tmp_path):
    with pytest.raises(MicronetError, match=f"must be a tuple of tensors, {words}"):
        export_onnx(One(), inputs, tmp_path / "m.onnx")


def test_a_signature_can_be_had_without_a_file():
    signature = signature_of(nn.Conv2d(3, 4, 3, 2), (tensor(2, 3, 9, 9),), dynamic=("height",))
    assert str(signature.outputs) == "float32 [2, 4, (((height - 3)//2)) + 1, 4]"
