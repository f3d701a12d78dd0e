"""A model or data that can't work is refused in one sentence, before any step."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
import torch_engine

OWN = """
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def sets(images=8, labels=None, shape=(3, 16, 16), dtype=torch.float32):
    labels = torch.arange(images) % 4 if labels is None else labels
    return TensorDataset(torch.zeros(images, *shape, dtype=dtype), labels)


def one_set():
    return sets()


def three_sets():
    return sets(), sets(), sets()


def loaders():
    return DataLoader(sets(), 4), DataLoader(sets(), 4)


def generators():
    return iter([]), iter([])


def empty():
    return sets(0), sets()


def bytes_as_images():
    return sets(dtype=torch.uint8), sets()


def images_alone():
    return TensorDataset(torch.zeros(4, 3, 16, 16)), sets()


def one_hot():
    return sets(labels=torch.eye(8)), sets()


def ragged():
    return [(torch.zeros(3, 16, 16), 0), (torch.zeros(3, 16, 17), 1)], sets()


def other_test_shape():
    return sets(), sets(shape=(1, 16, 16))


def unreadable():
    class Broken(TensorDataset):
        def __getitem__(self, index):
            raise OSError("photo 0 is gone")

    return Broken(torch.zeros(4)), sets()


def grey():
    return sets(shape=(1, 16, 16)), sets(shape=(1, 16, 16))


def five_classes():
    return sets(labels=torch.arange(8) % 5), sets()


def five_test_classes():
    return sets(), sets(labels=torch.arange(8) % 5)


def good():
    return sets(), sets()


def failing_later():
    class Broken(TensorDataset):
        def __getitem__(self, index):
            if index == 5:
                raise OSError("photo 5 is gone")
            return super().__getitem__(index)

    return Broken(torch.zeros(8, 3, 16, 16), torch.arange(8) % 4), sets()


def ending():
    sys.exit(0)


def ending_later():
    class Ending(TensorDataset):
        def __getitem__(self, index):
            return sys.exit(0) if index == 5 else super().__getitem__(index)

    return Ending(torch.zeros(8, 3, 16, 16), torch.arange(8) % 4), sets()


def dark_test_image():
    train, test = sets(), sets()
    test.tensors[0][2:] -= 1
    return train, test


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(768, 4)

    def forward(self, x):
        return self.head(x.flatten(1)) + x.amin((1, 2, 3)).sqrt()[:, None]


class Ending(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(768, 4)

    def forward(self, x):
        if len(x) == 5:
            sys.exit(0)
        return self.head(x.flatten(1))


def images_as_outputs():
    return nn.Conv2d(3, 4, 3)


def no_module():
    return 3


def constant():
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    nn.init.zeros_(model[1].weight)
    return model


def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 1000))
"""


@pytest.fixture
def own(project):
    (project.folder / "own.py").write_text(OWN, "utf-8")
    return project


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("one_set", "must return two data sets, (train, test), got an object of type TensorD"),
        ("three_sets", "must return two data sets, (train, test), got 3 things"),
        ("loaders", "The training set of own:loaders must be a data set, got a DataLoader"),
        ("generators", "must have a length and indices, got an object of type list_iterator"),
        ("empty", "The training set of own:empty must hold two images or more, got 0"),
        ("bytes_as_images", "must give (float tensor, target), got a tensor of uint8"),
        ("images_alone", "the training set gives images without targets; only a teacher"),
        ("one_hot", "as the label, got a tensor of float32 [8]"),
        ("ragged", "must give images of one shape, got [3, 16, 16] and [3, 16, 17]"),
        ("other_test_shape", "must all have one shape, got [3, 16, 16] for training and [1, 16,"),
        ("unreadable", "gives no image 0: OSError: photo 0 is gone"),
        ("grey", "model tiny:model fails on images [2, 1, 16, 16]: RuntimeError: Given groups=1"),
        (
            "five_classes",
            "must give labels below 4, the model's number of classes, got 4 at index 4",
        ),
        (
            "five_test_classes",
            "must give labels below 4, the model's number of classes, got 4 at index 4",
        ),
        ("ending", "own:ending fails: SystemExit: 0."),
        ("ending_later", "training set of own:ending_later gives no image 5: SystemExit: 0."),
        ("failing_later", "failing_later gives no image 5: OSError: photo 5 is gone"),
    ],
)
def test_data_that_can_not_be_used_is_refused(own, data, sentence):
    own.write_recipe("train", data=f"own:{data}")
    _refused(own.run(), sentence)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("images_as_outputs", "must give logits [batch, classes], got [2, 4, 14, 14]"),
        ("no_module", "The model must be a torch.nn.Module, got int"),
        ("ending", "own:ending fails: SystemExit: 0."),
    ],
)
def test_a_model_that_can_not_be_used_is_refused(own, model, sentence):
    own.write_recipe("train", model=f"own:{model}", data="own:good")
    _refused(own.run(), sentence)


def _refused(result, sentence):
    assert result.returncode == 2, result.stderr
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_in_a_worker_is_the_same_sentence(own):
    own.write_recipe({"train": {"workers": 2}}, data="own:ending_later")
    result = own.run()
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == (
        "micronet: The training set of own:ending_later gives no image 5: SystemExit: 0."
    )


def test_outputs_that_are_no_numbers_are_no_accuracy(own):
    own.write_recipe("evaluate", model="own:Root", data="own:dark_test_image")
    _refused(own.run(), "Step 00-model: The model gives NaN or Inf for test image 2, so no answer")
    assert not (own.out / "results.json").exists()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("dark_test_image", "out/deploy/02-torch_engine gives NaN or Inf for test image 2, so no"),
        (
            "five_test_classes",
            "must give labels below 4, the model's number of classes, got 4 at index 4",
        ),
    ],
)
def test_an_engine_alone_is_held_to_the_same(own, data, sentence):
    torch_engine.install(own.folder)
    own.write_recipe(
        "evaluate", {"deploy": {"backend": "torch_engine"}}, model="own:Root", data="own:good"
    )
    assert own.run().returncode == 0
    (own.out / "steps" / "01-evaluate.json").unlink()
    _refused(own.micronet("eval", "out/deploy/02-torch_engine", "--data", f"own:{data}"), sentence)


def test_a_model_that_ends_the_program_later_ends_no_run_in_silence(own):
    own.write_recipe({"train": {"batch_size": 5}}, model="own:Ending", data="own:good")
    _refused(own.run(), "Step 01-train: the model or a technique fails: SystemExit: 0.")


def test_a_model_that_tells_nothing_apart_is_told_beside_its_table(own):
    own.write_recipe("evaluate", "deploy", model="own:constant", data="own:good")
    result = own.run()
    assert result.returncode == 0, result.stderr
    assert "01-evaluate, 02-deploy: every test image gets class" in result.stdout
    assert "02-deploy: every test image gets class" in result.stdout
    assert "every test image gets class" in (own.out / "results.md").read_text("utf-8")
    assert any("every test image" in note for row in own.rows() for note in row["notes"])


def test_more_classes_than_labels_are_told(own):
    own.write_recipe("evaluate", model="own:wide", data="own:good")
    result = own.run()
    assert "the model has 1000 classes, and the labels of the test set end at 3." in result.stdout


def test_random_weights_of_a_registered_model_are_told(own):
    recipe = {"name": "nin", "num_classes": 4, "cfg": [8] * 8}
    (own.folder / "own.py").write_text(OWN.replace("16, 16", "32, 32"), "utf-8")
    own.write_recipe("evaluate", model=recipe, data="own:good")
    assert "00-model: the recipe gives this model no weights" in own.run().stdout


def test_changed_code_is_told_and_the_run_goes_on(own):
    own.write_recipe("evaluate", data="own:good")
    assert own.run().returncode == 0
    (own.folder / "own.py").write_text(OWN + "\n", "utf-8")
    result = own.run()
    assert result.returncode == 0
    assert "the code of own:good has changed" in result.stderr
    assert "the code of tiny:model" not in result.stderr


def test_changed_weights_are_refused(own, whole_run):
    weights = own.folder / "start.safetensors"
    weights.write_bytes((whole_run.out / "steps" / "01-train.safetensors").read_bytes())
    own.write_recipe("evaluate", data="own:good", weights="start.safetensors")
    assert own.run().returncode == 0
    assert own.run().returncode == 0
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    _refused(own.run(), "began with other weights: ")
    assert own.run("--fresh").returncode == 0


def test_a_file_as_the_runs_folder_is_refused(own):
    own.out.write_text("mine", "utf-8")
    own.write_recipe("evaluate", data="own:good")
    _refused(own.run(), "--out must be a folder, and out is a file")
    assert own.out.read_text("utf-8") == "mine"


def test_where_things_are_is_said_first_and_last(own):
    own.write_recipe("evaluate", data="own:good")
    lines = own.run().stderr.splitlines()
    assert lines[0] == "tiny.yaml: 1 step, in out"
    assert lines[-1] == "The table, checkpoints and engines are in out."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pack", "nowhere", "-o", "a.safetensors"), "There is no run at nowhere."),
        (("pack", "out", "-o", "a.bin"), "must end in .safetensors"),
    ],
)
def test_packing_what_is_not_there_is_refused(own, arguments, sentence):
    _refused(own.micronet(*arguments), sentence)
