"""`micronet validate` looks at the weights, and at the model and the data that a user brings."""

import runpy

import pytest
import torch

from micronet.storage.weights import save_state

OWN = """
import sys
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

print("text of the user's own")


class Late(Dataset):
    '''Only image 77 is of class 4; where `kept` is, it tells so.'''

    def __init__(self, label=4, kept=None):
        self.label = label
        if kept is not None:
            self.targets = kept

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return torch.zeros(3, 16, 16), self.label if index == 77 else index % 4


def fine():
    return Late(3), Late(3)


def five_of_tensors():
    labels = torch.tensor([4 if index == 77 else 0 for index in range(1000)])
    return Late(3), TensorDataset(torch.zeros(1000, 3, 16, 16), labels)


def five_of_targets():
    return Late(kept=[4 if index == 77 else 0 for index in range(1000)]), Late(3)


def targets_of_its_own():
    return Late(3, kept=[99] * 1000), Late(3, kept="none")


def five_at_the_end():
    return Late(3), [(torch.zeros(3, 16, 16), index // 25) for index in range(101)]


def grey():
    return ([(torch.zeros(1, 16, 16), 0)] * 9,) * 2


def exiting():
    sys.exit(0)


def for_digits():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 9))
"""


@pytest.fixture
def own(project):
    (project.folder / "own.py").write_text(OWN, "utf-8")
    return project


def state_of_the_model(project):
    return runpy.run_path(str(project.folder / "tiny.py"))["model"]().state_dict()


def refusals(project, **recipe):
    project.write_recipe("train", **recipe)
    done = project.micronet("validate", "tiny.yaml")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("micronet: ")]


@pytest.mark.parametrize("data", ["fine", "targets_of_its_own"])
def test_what_fits_is_printed_without_what_the_users_code_prints(own, data):
    save_state(state_of_the_model(own), own.folder / "w.safetensors")
    own.write_recipe("train", data=f"own:{data}", weights="w.safetensors")
    done = own.micronet("validate", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model: tiny:model\n")
    assert "text of the user's own" in done.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("five_of_tensors", "A label is 4, and the model has 4 classes: 0 to 3."),
        ("five_of_targets", "A label is 4, and the model has 4 classes: 0 to 3."),
        ("five_at_the_end", "A label is 4, and the model has 4 classes: 0 to 3."),
        ("exiting", "own:exiting fails: SystemExit: 0."),
    ],
)
def test_data_that_do_not_suit_are_refused_at_their_line(own, data, message):
    assert refusals(own, data=f"own:{data}") == [f"micronet: tiny.yaml:2: {message}"]


def test_images_that_the_model_does_not_take_are_refused(own):
    (told,) = refusals(own, data="own:grey")
    assert told.startswith("micronet: tiny.yaml:1: model tiny:model fails on images [2, 1, 16, 16]")


def test_a_model_of_ones_own_is_compared_with_registered_data(own):
    (told,) = refusals(own, model="own:for_digits", data="digits")
    assert told == "micronet: tiny.yaml:2: A label is 9, and the model has 9 classes: 0 to 8."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("0.weight"), "it lacks '0.weight' [8, 3, 3, 3]."),
        (lambda state: state.update(more=torch.ones(1)), "it has too many 'more' [1]."),
        (
            lambda state: state.update({"10.bias": torch.ones(5)}),
            "of another shape are '10.bias' [5], in the model [4].",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_at_their_line(own, change, message):
    state = state_of_the_model(own)
    change(state)
    save_state(state, own.folder / "w.safetensors")
    (told,) = refusals(own, weights="w.safetensors")
    assert told.startswith("micronet: tiny.yaml:3: ")
    assert f"w.safetensors does not fit the model: {message}" in told


def test_weights_of_a_registered_model_are_looked_at_too(own):
    save_state({"a": torch.ones(1)}, own.folder / "w.safetensors")
    (told,) = refusals(own, model="nin", data="digits", weights="w.safetensors")
    assert "w.safetensors does not fit the model: it lacks" in told


def test_weights_and_data_are_refused_at_once(own):
    (own.folder / "w.pth").write_bytes(b"none")
    told = refusals(own, data="own:five_of_tensors", weights="w.pth")
    assert ["tiny.yaml:2" in told[0], "tiny.yaml:3" in told[1]] == [True, True]


def test_a_recipe_that_is_refused_anyway_makes_nothing(own):
    (told,) = refusals(own, data="own:exiting", seed=-1)
    assert "seed must be at least 0" in told
