"""A recipe's pruned model lives on: in other recipes, in Python, in engines, after any rounds."""

import runpy
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

import micronet
from micronet.errors import DataError
from micronet.pipeline import load_packed

TRAIN = {"train": {"epochs": 1, "batch_size": 32, "lr": 1e-2}}
PRUNE = {"prune": {"pruner": "normal", "percent": 0.3}}
QUANTIZE = {"quantize": {"quantizer": "iao"}}
LAST = "05-train.safetensors"
ENGINE = ["--backend", "onnxruntime"]
FLOAT = ["02-prune.safetensors", "03-train.safetensors", "04-prune.safetensors", LAST]


@pytest.fixture(scope="module")
def twice_pruned(tmp_path_factory, make_project):
    """A run of two rounds of pruning, and of a quantizer after them."""
    project = make_project(tmp_path_factory.mktemp("twice"))
    project.write_recipe(TRAIN, PRUNE, TRAIN, PRUNE, TRAIN, QUANTIZE, "calibrate")
    done = project.run()
    assert done.returncode == 0, done.stderr
    return project


def model_of(project):
    return runpy.run_path(str(project.folder / "tiny.py"))["model"]


@pytest.fixture
def other(project, twice_pruned):
    """Another project, with the pruned model's file."""
    shutil.copy(twice_pruned.out / "steps" / LAST, project.folder / "pruned.safetensors")
    return project


@pytest.mark.parametrize("name", FLOAT)
def test_every_float_checkpoint_is_a_pruned_model_by_itself(twice_pruned, name):
    path = twice_pruned.out / "steps" / name
    model = micronet.load_pruned(model_of(twice_pruned), path)
    state = load_file(path)
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())
    assert len(model[0].weight) < 8
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 4)


def test_another_recipe_begins_with_it_and_prunes_on(other, twice_pruned):
    other.write_recipe(
        "evaluate", PRUNE, TRAIN, QUANTIZE, "calibrate", weights="pruned.safetensors"
    )
    assert other.micronet("validate", "tiny.yaml").returncode == 0

    done = other.run()

    assert done.returncode == 0, done.stderr
    before, rows = twice_pruned.rows()[4], other.rows()
    assert rows[0]["params_m"] == before["params_m"]
    assert {row["accuracy"] for row in rows[:2]} == {before["accuracy"]}
    assert rows[2]["params_m"] < before["params_m"]
    model = micronet.load_pruned(model_of(other), other.out / "steps" / "03-train.safetensors")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == rows[3]["params_m"]
    packed = load_packed(other.out / "steps" / "05-calibrate.packed.safetensors", model_of(other))
    assert packed[0].out_channels == len(model[0].weight) < 8


def test_its_run_can_be_opened_when_the_file_is_gone(other):
    other.write_recipe(TRAIN, PRUNE, weights="pruned.safetensors")
    assert other.run().returncode == 0
    (other.folder / "pruned.safetensors").unlink()

    done = other.micronet("deploy", "out", *ENGINE)

    assert done.returncode == 0, done.stderr


def test_a_run_that_begins_with_it_goes_on_with_the_same_bits(other):
    other.write_recipe({"train": {"epochs": 2}}, PRUNE, TRAIN, weights="pruned.safetensors")
    assert other.run().returncode == 0
    whole = other.weights()
    assert other.run("--fresh", MISHAP="killed", MISHAP_AT="after 01-train.epoch.pt 1").returncode
    assert other.run(MISHAP="killed", MISHAP_AT="after 02-prune.json 1").returncode
    assert other.run().returncode == 0
    assert other.weights() == whole


def test_it_is_deployed_by_itself(other):
    named = ["--model", "tiny:model", "--data", "tiny:data"]
    done = other.micronet("deploy", "pruned.safetensors", *ENGINE, *named)
    assert done.returncode == 0, done.stderr
    assert (other.folder / "pruned-onnxruntime" / "model.onnx").is_file()


def test_a_file_names_code_but_does_not_choose_it(other):
    done = other.micronet("deploy", "pruned.safetensors", *ENGINE)
    assert done.returncode == 2
    assert "--data tiny:data" in done.stderr


def test_one_of_a_registered_model_knows_its_model_and_data(project):
    project.write_recipe(PRUNE, model={"name": "nin", "cfg": [16] * 8}, data="digits")
    assert project.run().returncode == 0
    shutil.copy(
        project.out / "steps" / "01-prune.safetensors", project.folder / "small.safetensors"
    )

    done = project.micronet("deploy", "small.safetensors", *ENGINE)

    assert done.returncode == 0, done.stderr


def test_one_that_was_saved_in_python_needs_both_names(other, twice_pruned):
    model = micronet.load_pruned(model_of(other), other.folder / "pruned.safetensors")
    result = micronet.registry.create("pruner", "normal").prune(
        model_of(other)(), (torch.randn(2, 3, 16, 16),)
    )
    micronet.save_pruned(result.model, result.plan, other.folder / "mine.safetensors")
    done = other.micronet("deploy", "mine.safetensors", *ENGINE, "--model", "tiny:model")
    assert done.returncode == 2
    assert "does not say what its model and its data are called" in done.stderr
    done = other.micronet(
        "deploy", "mine.safetensors", *ENGINE, "--model", "tiny:model", "--data", "tiny:data"
    )
    assert done.returncode == 0, done.stderr
    assert len(model[0].weight) < 8


def change_a_weight(state, metadata):
    state["0.weight"].view(-1)[0] += 1


def change_the_plan(state, metadata):
    metadata["micronet.pruning_plan"] = metadata["micronet.pruning_plan"].replace("1", "2")


@pytest.mark.parametrize("change", [change_a_weight, change_the_plan])
def test_a_changed_file_is_refused_at_every_door(other, change):
    path = other.folder / "pruned.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    change(state, metadata)
    path.write_bytes(save(state, metadata))
    with pytest.raises(DataError, match="was changed since it was written"):
        micronet.load_pruned(model_of(other), path)
    other.write_recipe("evaluate", weights="pruned.safetensors")
    for arguments in (
        ["validate", "tiny.yaml"],
        ["run", "tiny.yaml"],
        ["deploy", path.name, *ENGINE],
    ):
        done = other.micronet(*arguments)
        assert done.returncode == 2
        assert "was changed since it was written" in done.stderr
        assert "Traceback" not in done.stderr


def test_of_another_model_it_is_refused_with_the_layer(other):
    other.write_recipe("evaluate", model="nin", data="digits", weights="pruned.safetensors")
    for command in (["validate", "tiny.yaml"], ["run", "tiny.yaml", "--out", "out"]):
        done = other.micronet(*command)
        assert done.returncode == 2
        assert "The plan does not fit the model at '0'" in done.stderr


def test_the_plan_takes_little_room_even_in_a_small_file(twice_pruned):
    path = twice_pruned.out / "steps" / LAST
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert len(metadata["micronet.pruning_plan"]) < 300
