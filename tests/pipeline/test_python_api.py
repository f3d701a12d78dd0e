"""The same from Python."""

import json
import sys

import attrs
import pytest
import torch

import micronet
from micronet.errors import RunError
from micronet.recipe import Calibrate, Evaluate, Fuse, Prune, Quantize, Recipe, Train


@pytest.fixture
def in_project(project, monkeypatch):
    """The test runs in the project's folder; its module is forgotten afterwards."""
    monkeypatch.chdir(project.folder)
    monkeypatch.syspath_prepend(project.folder)
    monkeypatch.setitem(sys.modules, "tiny", None)
    del sys.modules["tiny"]
    return project


def _recipe() -> Recipe:
    return Recipe(
        model="tiny:model",
        data="tiny:data",
        steps=[
            Train(epochs=3, batch_size=32, lr=1e-2, sparsity=1e-4),
            Prune("normal", {"percent": 0.4}),
            Train(epochs=2, batch_size=32, lr=5e-3),
            Quantize("iao"),
            Train(epochs=2, batch_size=32, lr=1e-3),
            Fuse(),
        ],
    )


def test_run_returns_what_the_results_file_says(in_project, capfd):
    steps = [Train(epochs=2, batch_size=32, lr=1e-2), Quantize("iao"), Calibrate(batches=2)]
    recipe = Recipe(model="tiny:model", data="tiny:data", steps=steps)

    results = micronet.run(recipe, "out", quiet=True)

    stored = json.loads((in_project.out / "results.json").read_text("utf-8"))
    rows = [{**attrs.asdict(row), "accuracy": row.accuracy} for row in results.rows]
    assert rows == stored["rows"]
    assert [row.step for row in results.rows] == ["01-train", "02-quantize", "03-calibrate"]
    assert capfd.readouterr() == ("", "")


def test_a_recipe_in_python_and_the_same_in_yaml_are_one_run(in_project, whole_run):
    results = micronet.run(_recipe(), whole_run.out)

    assert [row.step for row in results.rows] == [row["step"] for row in whole_run.rows()]


def test_a_run_leaves_torchs_settings_as_they_were(in_project):
    recipe = Recipe(model="tiny:model", data="tiny:data", steps=[Evaluate()])

    micronet.run(recipe, "out")

    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()


def test_another_recipe_in_the_same_folder_raises(in_project, whole_run):
    recipe = attrs.evolve(_recipe(), seed=3)

    with pytest.raises(RunError, match="seed was 0, is now 3"):
        micronet.run(recipe, whole_run.out)
