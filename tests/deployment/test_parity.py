"""Engines that are wrong on purpose: how far off they are, and at which layer they go wrong."""

import copy
import sys
from pathlib import Path

import attrs
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from micronet.deployment.parity import (
    Agreement,
    Comparison,
    compare,
    first_departure,
    where_they_part,
)
from micronet.errors import DeployError
from micronet.graph import TracingError
from micronet.registry import create
from micronet.techniques import DeployBackend

sys.path.append(str(Path(__file__).parent))
from torch_engine import TorchEngine

X = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def converted(net):
    quantizer = create("quantizer", "iao")
    prepared = quantizer.prepare(net.eval(), (X,))
    quantizer.calibrate(prepared, [X])
    return quantizer.convert(create("fuser", "bn").fuse(prepared, (X,)))


@pytest.fixture
def model(small_net):
    """Two convolutions, a residual addition and a linear layer, at 8 bits."""
    return converted(small_net)


LAYERS = {
    "stem": "stem",
    "relu": "relu (call 1 of 2)",
    "max_pool2d": "max_pool2d",
    "body": "body",
    "activation_quantizers_body_bn": "body_bn",
    "add": "add",
    "relu_1": "relu (call 2 of 2)",
    "pool": "pool",
    "flatten": "flatten",
    "head": "head",
}


@pytest.mark.parametrize("operation", LAYERS)
def test_a_fault_is_found_at_the_operation_that_has_it(model, operation):
    found = first_departure(model, TorchEngine(spoils=operation), X)
    assert found.layer == LAYERS[operation]
    assert found.error > 0.5 >= found.error_before
    assert found.sudden


class Branches(nn.Module):
    """A short way and a long one, which runs after it, and a sum."""

    def __init__(self):
        super().__init__()
        self.short = nn.Conv2d(3, 8, 1)
        self.long = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head((self.short(x) + self.long(x)).mean((2, 3)))


@pytest.mark.parametrize("layer", ["short", "long.0", "long.1", "long.2", "head"])
def test_a_branch_that_is_right_clears_no_other(layer):
    torch.manual_seed(0)
    model = converted(Branches())
    assert first_departure(model, TorchEngine(spoils=layer.replace(".", "_")), X).layer == layer


def test_a_good_engine_departs_nowhere(model):
    assert first_departure(model, TorchEngine(), X) is None
    told = where_they_part(model, TorchEngine(), X, dynamic=("batch",))
    assert "rounding between classes that are nearly equally likely" in told


def test_a_fault_is_found_in_a_model_whose_layers_quantize_their_own_inputs(small_net):
    quantizer = create("quantizer", "dorefa")
    prepared = quantizer.prepare(small_net.eval(), (X,))
    assert first_departure(prepared, TorchEngine(spoils="body"), X).layer == "body"


def test_the_model_in_doubt_stays_as_it_is(model):
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    nodes = [node.name for node in model.graph.nodes]
    first_departure(model.train(), TorchEngine(spoils="body"), X)
    assert model.training
    assert [node.name for node in model.graph.nodes] == nodes
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@attrs.frozen
class Miswritten(DeployBackend):
    """ONNX Runtime, given files in which one channel of one layer has the wrong sign."""

    layer: str

    def write(self, model, example_inputs, directory, *, dynamic):
        good = create("deploy_backend", "onnxruntime")
        artifact = good.export(model, example_inputs, directory, dynamic=dynamic)
        file = onnx.load(artifact.path)
        for tensor in file.graph.initializer:
            if tensor.name == f"{self.layer}.weight_quantizer.codes":
                codes = numpy_helper.to_array(tensor).copy()
                codes[0] *= -1
                tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))
        onnx.save(file, artifact.path)
        return artifact

    def start(self, artifact, *, threads):
        return create("deploy_backend", "onnxruntime").load(artifact, threads=1)


def test_a_miswritten_onnx_file_is_traced_back_to_its_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Flatten(), nn.Linear(392, 4))
    model = converted(net)
    told = where_they_part(model, Miswritten("0"), X, dynamic=("batch",))
    assert told.startswith("They first part at '0', whose outputs are off by")
    assert first_departure(model, Miswritten("none"), X) is None


class Looping(nn.Module):
    """Decides by a value, which no trace can follow."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, 4)

    def forward(self, x):
        return self.head(x.flatten(1)) if x.sum() > 0 else self.head(-x.flatten(1))


def test_where_no_trace_can_follow_the_reason_is_told():
    with pytest.raises(TracingError):
        first_departure(Looping(), TorchEngine(spoils="head"), X)
    told = where_they_part(Looping(), TorchEngine(spoils="head"), X, dynamic=("batch",))
    assert told.startswith("The layer where they part can't be looked for: Looping can't be")


LOGITS = np.array([[0, 51], [25.5, 0], [1, 2]], np.float32)


def test_errors_are_counted_in_parts_of_the_outputs_range():
    off = LOGITS + np.array([[0, 0], [0, 0], [0, -1.2]], np.float32)
    found = compare(nn.Identity(), LOGITS, off)
    assert found.top1 == pytest.approx(2 / 3)
    assert found.max_error == pytest.approx(1.2 / 0.2)
    assert found.mean_error == pytest.approx(1.2 / 0.2 / 6)


def test_errors_of_a_quantized_output_are_counted_in_its_own_steps(model):
    graph = copy.deepcopy(model)
    last = graph.get_submodule("activation_quantizers.pool")
    graph.graph.output_node().args = (
        next(node for node in graph.graph.nodes if node.name == "activation_quantizers_pool"),
    )
    step = np.float32(last.scale)
    assert compare(graph, LOGITS, LOGITS + 3 * step).max_error == pytest.approx(3, rel=1e-3)


def test_outputs_that_are_no_numbers_count_as_infinitely_far_off():
    broken = LOGITS.copy()
    broken[1, 1] = np.nan
    found = compare(nn.Identity(), LOGITS, broken)
    assert (found.top1, found.max_error) == (pytest.approx(2 / 3), np.inf)
    assert worst_image(LOGITS, broken) == 1


def worst_image(simulated, found):
    comparison = Comparison(nn.Identity())
    comparison.update(simulated, found)
    return comparison.worst_images(1)[0]


def test_batches_add_up():
    found = LOGITS + np.linspace(-1, 2, LOGITS.size, dtype=np.float32).reshape(LOGITS.shape)
    comparison = Comparison(nn.Identity())
    for part in (slice(0, 1), slice(1, None)):
        comparison.update(LOGITS[part], found[part])
    whole, parts = compare(nn.Identity(), LOGITS, found), comparison.parity()
    assert parts.top1 == whole.top1
    assert parts.max_error == pytest.approx(whole.max_error)
    assert parts.mean_error == pytest.approx(whole.mean_error)


def test_equal_outputs_have_no_error_even_where_they_are_infinite():
    same = np.array([[-np.inf, 1.0], [2.0, 2.0]], np.float32)
    found = compare(nn.Identity(), same, same)
    assert (found.top1, found.max_error, found.mean_error) == (1, 0, 0)
    constant = np.full((2, 3), 4, np.float32)
    assert compare(nn.Identity(), constant, constant).max_error == 0


def test_each_output_has_its_figures_and_the_worst_stand_for_all():
    maps = np.zeros((2, 3, 2, 2), np.float32)
    maps[:, 0] = 1
    other = maps.copy()
    other[0, :, 0, 0] = [0, 1, 0]  # another class at one of eight pixels
    simulated = {"out": maps, "aux": (LOGITS, None)}
    found = compare(nn.Identity(), simulated, {"out": other, "aux": (LOGITS, None)})
    assert list(found.outputs) == ["out", "aux_0"]
    assert found.outputs["aux_0"] == Agreement(1.0, 0.0, 0.0)
    assert found.outputs["out"].top1 == pytest.approx(7 / 8)
    assert (found.top1, found.max_error) == (found.outputs["out"].top1, pytest.approx(255))


@pytest.mark.parametrize(
    ("simulated", "other", "top1", "max_error"),
    [
        (np.array([3, 4, 5, 6]), np.array([3, 4, 5, 8]), 0.75, 2),
        (np.array([True, False]), np.array([True, True]), 0.5, 1),
        (np.array([0, 255], np.float32), np.array([0.5, 253], np.float32), 0.5, 2),
        (np.array([[0], [255]], np.float32), np.array([[0.5], [253]], np.float32), 0.5, 2),
        (np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), 1, 0),
        (np.float32(1), np.float32(1), 1, 0),
    ],
)
def test_integers_numbers_and_nothing_have_figures_too(simulated, other, top1, max_error):
    found = compare(nn.Identity(), simulated, other)
    assert (found.top1, found.max_error) == (top1, pytest.approx(max_error))


def test_an_infinite_value_in_any_output_counts():
    broken = LOGITS.copy()
    broken[0, 0] = np.nan
    found = compare(nn.Identity(), (LOGITS, LOGITS), (LOGITS, broken))
    assert found.outputs["output_0"].max_error == 0
    assert (found.max_error, found.top1) == (np.inf, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (LOGITS, "The simulated model gives out, aux, the engine gives output."),
        ({"out": LOGITS}, "The simulated model gives out, aux, the engine gives out."),
        (
            {"out": LOGITS, "aux": LOGITS[:1]},
            r"The output 'aux' is \[3, 2\] in the simulated model and \[1, 2\] in the engine.",
        ),
    ],
)
def test_another_structure_is_refused_in_words(other, sentence):
    with pytest.raises(DeployError, match=sentence):
        compare(nn.Identity(), {"out": LOGITS, "aux": LOGITS}, other)


def test_each_quantized_output_of_a_traced_model_has_its_own_step(model):
    graph = copy.deepcopy(model)
    names = ("activation_quantizers_pool", "activation_quantizers_body_bn")
    nodes = {node.name: node for node in graph.graph.nodes}
    graph.graph.output_node().args = ({name: nodes[name] for name in names},)
    outputs = dict.fromkeys(names, LOGITS)
    off = dict.fromkeys(names, LOGITS + 1)
    found = compare(graph, outputs, off).outputs
    for name, layer in zip(names, ("pool", "body_bn"), strict=True):
        step = float(graph.get_submodule(f"activation_quantizers.{layer}").scale)
        assert found[name].max_error == pytest.approx(1 / step, rel=1e-3)


def test_the_worst_images_are_those_of_any_output():
    second = LOGITS.copy()
    second[1] += 9
    table = np.ones(5, np.float32)
    found = {"a": LOGITS, "b": second, "table": table}
    assert worst_image({"a": LOGITS, "b": LOGITS, "table": table}, found) == 1
