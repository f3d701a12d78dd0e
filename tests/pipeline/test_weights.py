"""Weights from files: given ones are taken over whole, and what could run code never does."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from micronet.storage.epochs import load_epoch, save_epoch

TRAIN = {"train": {"epochs": 2, "batch_size": 32}}


class Poison:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.fixture(scope="module")
def trained(whole_run):
    """The state_dict of a trained model."""
    return load_file(whole_run.out / "steps" / "01-train.safetensors")


def _save(state, path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [("given.safetensors", False), ("given.pth", False), ("given.pth", True)],
    ids=["safetensors", "pth", "pth with state_dict in it"],
)
def test_a_recipe_starts_from_given_weights(project, whole_run, trained, name, wrapped):
    _save({"state_dict": trained} if wrapped else trained, project.folder / name)
    project.write_recipe("evaluate", weights=name)

    result = project.run()

    assert result.returncode == 0, result.stderr
    stored = load_file(project.out / "steps" / "00-model.safetensors")
    assert stored.keys() == trained.keys()
    assert all(torch.equal(stored[key], tensor) for key, tensor in trained.items())
    rows = project.rows()
    assert [row["step"] for row in rows] == ["00-model", "01-evaluate"]
    assert {row["accuracy"] for row in rows} == {whole_run.rows()[0]["accuracy"]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("4.weight"), "lacks '4.weight'"),
        (lambda state: state.update({"11.bias": torch.zeros(1)}), "has too many '11.bias' [1]"),
        (lambda state: state.update({"4.weight": torch.zeros(8, 8, 1, 1)}), "4.weight"),
    ],
    ids=["a key is missing", "a key is left over", "a shape differs"],
)
def test_weights_that_do_not_fit_are_refused_with_the_key(project, trained, change, complaint):
    state = dict(trained)
    change(state)
    save_file(state, project.folder / "given.safetensors")
    project.write_recipe("evaluate", weights="given.safetensors")

    result = project.run()

    assert result.returncode == 2
    assert "given.safetensors does not fit the model" in result.stderr
    assert complaint in result.stderr


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_that_could_run_code_are_refused_and_run_none(project, wrapped):
    touched = project.folder / "touched"
    poison = Poison(touched)
    torch.save(
        {"state_dict": {"0.weight": poison}} if wrapped else poison, project.folder / "x.pth"
    )
    project.write_recipe("evaluate", weights="x.pth")

    result = project.run()

    assert result.returncode == 2
    assert "x.pth holds more than tensors and numbers and is refused" in result.stderr
    assert not touched.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("given.safetensors", b""),
        ("given.safetensors", b"not weights at all"),
        ("given.pth", b""),
        ("given.pth", b"not weights at all"),
        ("given.pth", b"PK\x03\x04 and cut off"),
    ],
)
def test_files_that_hold_no_weights_are_refused(project, name, content):
    (project.folder / name).write_bytes(content)
    project.write_recipe("evaluate", weights=name)

    result = project.run()

    assert result.returncode == 2, result.stderr
    assert name in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_weights_that_are_not_there_are_missed_before_anything_runs(project):
    project.write_recipe("evaluate", weights="absent.pth")

    result = project.run()

    assert result.returncode == 2
    assert "tiny.yaml:3: there is no file 'absent.pth'" in result.stderr
    assert not project.out.exists()


def test_a_checkpoint_that_could_run_code_is_refused_and_runs_none(project):
    project.write_recipe(TRAIN)
    project.run(MISHAP="killed", MISHAP_AT="after 01-train.epoch.pt 1")
    checkpoint = project.out / "steps" / "01-train.epoch.pt"
    touched = project.folder / "touched"
    save_epoch({**load_epoch(checkpoint), "model": Poison(touched)}, checkpoint)

    result = project.run()

    assert result.returncode == 2
    assert "01-train.epoch.pt can't be read: " in result.stderr
    assert not touched.exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _overwrite(path: Path) -> None:
    path.write_bytes(b"\xff\xfe not a file of micronet")


def _take_away_the_model(path: Path) -> None:
    state = load_epoch(path)
    del state["model"]
    save_epoch(state, path)


def _take_away_a_weight(path: Path) -> None:
    state = load_epoch(path)
    del state["model"]["0.weight"]
    save_epoch(state, path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("01-train.safetensors", _cut),
        ("01-train.safetensors", _overwrite),
        ("01-train.json", _cut),
        ("01-train.json", _overwrite),
        ("02-train.epoch.pt", _cut),
        ("02-train.epoch.pt", _overwrite),
        ("02-train.epoch.pt", _take_away_the_model),
        ("02-train.epoch.pt", _take_away_a_weight),
    ],
)
def test_a_damaged_file_of_a_stopped_run_is_named(project, name, damage):
    project.write_recipe(TRAIN, TRAIN)
    project.run(MISHAP="killed", MISHAP_AT="after 02-train.epoch.pt 1")
    damage(project.out / "steps" / name)

    result = project.run()

    assert result.returncode == 2, result.stderr
    assert name in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
