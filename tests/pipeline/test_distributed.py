"""Recipes on several processes: gloo on the CPU stands for several GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

LAUNCHER = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def _torchrun(folder, *command, **environment):
    result = subprocess.run(
        [sys.executable, "-m", *LAUNCHER, *command],
        cwd=folder,
        env={
            **os.environ,
            **environment,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, make_project):
    """What both processes of a training and of calibrations ended with, by its name."""
    folder = tmp_path_factory.mktemp("ranks")
    make_project(folder)
    _torchrun(folder, str(Path(__file__).with_name("two_ranks.py")), str(folder))
    return {
        name: tuple(torch.load(folder / f"{name}.{rank}") for rank in (0, 1))
        for name in ("trained", "calibrated", "refined", "spare")
    }


@pytest.mark.parametrize("name", ["trained", "calibrated", "refined"])
def test_all_processes_end_with_the_same_weights_and_observers(ranks, name):
    first, second = ranks[name]

    assert first.keys() == second.keys()
    assert any("observer" in key for key in first)
    differing = [key for key in first if not torch.equal(first[key], second[key])]
    assert differing == []


def test_layers_that_get_no_gradient_stay_and_the_others_are_trained(ranks):
    first, second = ranks["spare"]

    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert torch.equal(first["unused.weight"], first["before"])


def test_observers_see_the_range_of_the_data_of_all_processes(ranks):
    for state in ranks["calibrated"]:
        lowest = min(v.min() for k, v in state.items() if k.endswith("observer.low"))
        highest = max(v.max() for k, v in state.items() if k.endswith("observer.high"))
        assert lowest <= -3
        assert highest >= 5


def test_a_recipe_on_two_processes_ends_in_one_table(project, whole_run):
    project.write_recipe(
        "evaluate",
        {"quantize": {"quantizer": "iao"}},
        {"train": {"epochs": 2, "batch_size": 16, "lr": 1e-3}},
        "deploy",
        weights=str(whole_run.out / "steps" / "01-train.safetensors"),
    )

    result = _torchrun(
        project.folder,
        *["-m", "micronet", "run", "tiny.yaml", "--cpu", "--json", "--out", "out"],
        ACCELERATE_GRADIENT_ACCUMULATION_STEPS="4",
    )

    assert result.stdout == (project.out / "results.json").read_text("utf-8")
    base, *_, deployed = json.loads(result.stdout)["rows"]
    assert base["accuracy"] == whole_run.rows()[0]["accuracy"]
    assert deployed["accuracy"] >= base["accuracy"] - 0.02
    environment = json.loads((project.out / "environment.json").read_text("utf-8"))
    assert environment["processes"] == 2
    assert environment["ignored"] == {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    assert result.stderr.count("Ignored, so that the environment changes no numbers") == 1
    assert result.stderr.count("[4/4] deploy onnxruntime") == 1
    assert "find_unused_parameters" not in result.stderr
