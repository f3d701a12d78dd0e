"""`calibrate` after `prune` measures batch norms anew, and changes nothing else."""

import runpy

import pytest
import torch
from safetensors.torch import load_file

import micronet

TRAIN = {"train": {"epochs": 4, "batch_size": 32, "lr": 1e-2}}
PRUNE = {"prune": {"pruner": "normal", "percent": 0.6}}
CALIBRATE = {"calibrate": {"batches": 4, "batch_size": 64}}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, make_project):
    project = make_project(tmp_path_factory.mktemp("calibrated"))
    project.write_recipe(TRAIN, PRUNE, CALIBRATE, "fuse")
    done = project.run()
    assert done.returncode == 0, done.stderr
    return project


def states(project):
    return [load_file(project.out / "steps" / f"0{name}.safetensors") for name in (
        "2-prune", "3-calibrate"
    )]  # fmt: skip


def test_only_statistics_change_and_the_table_shows_what_it_brings(calibrated):
    before, after = states(calibrated)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {
        f"{norm}.{statistic}"
        for norm in (1, 5)
        for statistic in ("running_mean", "running_var", "num_batches_tracked")
    }
    rows = {row["step"]: row for row in calibrated.rows()}
    assert rows["03-calibrate"]["accuracy"] > rows["02-prune"]["accuracy"]
    assert rows["04-fuse"]["accuracy"] == rows["03-calibrate"]["accuracy"]


def test_statistics_are_means_over_the_batches(calibrated):
    """Four full batches hold each of the 256 images once, so the first mean is that over all."""
    tiny = runpy.run_path(str(calibrated.folder / "tiny.py"))
    path = calibrated.out / "steps" / "03-calibrate.safetensors"
    model = micronet.load_pruned(tiny["model"], path)
    images = tiny["data"]()[0].images
    expected = model[0](images).mean((0, 2, 3))
    assert torch.allclose(model[1].running_mean, expected, atol=1e-5)


@pytest.mark.parametrize("moment", ["within 03-calibrate.safetensors 1", "image 1200"])
def test_a_killed_calibration_ends_with_the_same_bits(project, calibrated, moment):
    project.write_recipe(TRAIN, PRUNE, CALIBRATE, "fuse")
    assert project.run(MISHAP="killed", MISHAP_AT=moment).returncode
    assert (project.out / "steps" / "02-prune.json").exists()
    assert not (project.out / "steps" / "03-calibrate.json").exists()
    assert project.run().returncode == 0
    assert project.weights() == calibrated.weights()


def test_norms_that_are_frozen_stay(project):
    (project.folder / "own.py").write_text(
        "import tiny\n"
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def train(self, mode=True):\n"
        "        super().train(mode)[1].eval()\n"
        "        return self\n"
        "def model():\n"
        "    return Net(*tiny.model())\n",
        "utf-8",
    )
    project.write_recipe(TRAIN, PRUNE, CALIBRATE, model="own:model")
    assert project.run().returncode == 0
    before, after = states(project)
    assert torch.equal(before["1.running_mean"], after["1.running_mean"])
    assert not torch.equal(before["5.running_mean"], after["5.running_mean"])


def test_after_fuse_there_are_none(project):
    project.write_recipe(TRAIN, PRUNE, "fuse", "calibrate")
    done = project.micronet("validate", "tiny.yaml")
    assert done.returncode == 2
    assert "calibrate must come before fuse, which folds away the batch norms" in done.stderr
