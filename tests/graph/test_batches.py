"""What a forward is called with, whichever way users keep their batches."""

import doctest

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from micronet.errors import MicronetError, QuantizationError
from micronet.graph import batches as module
from micronet.graph import trace
from micronet.graph.batches import arguments, check_batches, first_rows, joined, positional

IMAGES = torch.zeros(4, 3, 8, 8)
LABELS = torch.tensor([0, 1, 2, 1])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2)


class One(Net):
    def forward(self, x):
        return self.layer(x)


class Two(Net):
    def forward(self, left, right):
        return self.layer(left) + self.layer(right)


class Optional(Net):
    def forward(self, x, targets=None):
        return self.layer(x), targets


class Any(Net):
    def forward(self, *inputs):
        return self.layer(sum(inputs))


class Named(Net):
    def forward(self, x, *, shift=0):
        return self.layer(x) + shift


def inputs_of(model, batch):
    args, kwargs = arguments(model, batch)
    return [tuple(v.shape) if isinstance(v, torch.Tensor) else v for v in args], sorted(kwargs)


SHAPE = (4, 3, 8, 8)


@pytest.mark.parametrize(
    ("model", "batch", "args"),
    [
        (One(), IMAGES, [SHAPE]),
        (One(), IMAGES.numpy(), [SHAPE]),
        (One(), (IMAGES,), [SHAPE]),
        (One(), [IMAGES, LABELS], [SHAPE]),
        (One(), (IMAGES.numpy(), LABELS.numpy()), [SHAPE]),
        (One(), (IMAGES, torch.zeros(4, 1)), [SHAPE]),  # a regression's
        (One(), (IMAGES, torch.zeros(4, 8, 8, dtype=torch.long)), [SHAPE]),  # a segmentation's
        (One(), (IMAGES, [{"boxes": LABELS}]), [SHAPE]),  # a detection's
        (One(), (IMAGES, LABELS, ["a.png", "b.png"]), [SHAPE]),
        (One(), next(iter(DataLoader(TensorDataset(IMAGES, LABELS), 4))), [SHAPE]),
        (Two(), (IMAGES, IMAGES), [SHAPE, SHAPE]),
        (Two(), [IMAGES, LABELS], [SHAPE, (4,)]),
        (Two(), (IMAGES, IMAGES, LABELS), [SHAPE, SHAPE]),
        (Two(), ((IMAGES, IMAGES), LABELS), [SHAPE, SHAPE]),
        (Optional(), (IMAGES,), [SHAPE]),
        (Optional(), IMAGES, [SHAPE]),
        (Any(), (IMAGES, IMAGES), [SHAPE, SHAPE]),
        (nn.Sequential(One()), (IMAGES, LABELS), [SHAPE]),
    ],
)
def test_what_can_only_be_meant_one_way_is_taken_so(model, batch, args):
    assert inputs_of(model, batch) == (args, [])


@pytest.mark.parametrize(
    ("model", "batch", "names"),
    [
        (One(), {"x": IMAGES}, ["x"]),
        (One(), ({"x": IMAGES}, LABELS), ["x"]),
        (Two(), {"right": IMAGES, "left": IMAGES.numpy()}, ["left", "right"]),
        (Optional(), {"x": IMAGES, "targets": LABELS}, ["targets", "x"]),
        (Named(), {"x": IMAGES, "shift": 1}, ["shift", "x"]),
    ],
)
def test_a_dictionary_names_the_inputs(model, batch, names):
    assert inputs_of(model, batch) == ([], names)


@pytest.mark.parametrize(
    ("model", "batch", "words"),
    [
        (One(), (IMAGES, IMAGES), "not clear which are inputs"),
        (One(), [], "must be a tensor"),
        (One(), "images", "must be a tensor.* got a str"),
        (One(), {"image": IMAGES}, "forward takes x, and a batch has 'image'"),
        (One(), {"x": IMAGES, "labels": LABELS}, "'labels', which it does not take"),
        (Two(), {"left": IMAGES}, "no 'right'"),
        (Two(), IMAGES, "forward takes left, right"),
        (Two(), (IMAGES,), "forward takes left, right"),
        (Optional(), (IMAGES, LABELS), "takes x and, if given, targets.*dictionary.*'x': tensor"),
    ],
)
def test_what_may_be_meant_several_ways_is_refused_in_a_sentence(model, batch, words):
    with pytest.raises(QuantizationError, match=words):
        arguments(model, batch)


@pytest.mark.parametrize("batches", [IMAGES, IMAGES.numpy(), {"x": IMAGES}])
def test_one_batch_is_no_row_of_batches(batches):
    with pytest.raises(QuantizationError, match=r"iterable of batches.*\[batch\]"):
        check_batches(batches)


def test_arrays_come_in_the_models_type():
    (found,), _ = arguments(One(), np.ones((2, 8)))
    assert found.dtype is torch.float32
    (found,), _ = arguments(One(), np.ones((2, 8), np.uint8))
    assert found.dtype is torch.uint8


def test_tensors_go_to_the_models_device():
    (found,), _ = arguments(One().to("meta"), IMAGES)
    assert found.is_meta


def test_a_traced_a_compiled_and_a_wrapped_model_take_what_the_model_takes():
    for model in (trace(Two()), torch.compile(Two(), backend="eager"), nn.DataParallel(Two())):
        assert inputs_of(model, (IMAGES, IMAGES, LABELS)) == ([SHAPE, SHAPE], [])
        assert inputs_of(model, {"left": IMAGES, "right": IMAGES})[1] == ["left", "right"]


def test_positional_arguments_are_in_order():
    found = positional(Two(), {"right": LABELS, "left": IMAGES})
    assert [value.shape for value in found] == [IMAGES.shape, LABELS.shape]
    assert len(positional(Optional(), IMAGES)) == 1
    assert positional(Named(), {"x": IMAGES})[0] is IMAGES
    with pytest.raises(MicronetError, match="shift by name only"):
        positional(Named(), {"x": IMAGES, "shift": 1})


def test_rows_are_those_of_tensors_with_one_for_each_image():
    mask = torch.zeros(7)
    assert [len(v) for v in first_rows((IMAGES, mask, LABELS), 2)] == [2, 7, 2]
    images, same, labels, nothing = joined([(IMAGES, mask, LABELS, None)] * 3)
    assert (len(images), len(same), len(labels), nothing) == (12, 7, 12, None)


def test_the_example_of_the_documentation_runs():
    assert doctest.testmod(module).failed == 0
