"""Quantization without training (PTQ), and training on after the observers stopped (QAFT)."""

import pytest
import torch
from safetensors.torch import load_file

TRAIN = {"train": {"epochs": 2, "batch_size": 32}}
QAFT = (TRAIN, {"quantize": {"quantizer": "iao"}}, TRAIN, "freeze", TRAIN)


def _state(project, step):
    return load_file(project.out / "steps" / f"{step}.safetensors")


def test_a_given_model_is_quantized_without_training_and_compared_with_itself(project, whole_run):
    weights = whole_run.out / "steps" / "01-train.safetensors"
    project.write_recipe(
        {"quantize": {"quantizer": "iao"}},
        {"calibrate": {"batches": 4, "batch_size": 32}},
        "deploy",
        weights=str(weights),
    )

    result = project.run()

    assert result.returncode == 0, result.stderr
    base, quantized, calibrated, deployed = project.rows()
    assert [base["step"], deployed["step"]] == ["00-model", "03-deploy"]
    assert (base["type"], base["w_bits"], base["a_bits"]) == ("tiny:model", 32, 32)
    assert quantized["accuracy"] is None
    for row in (calibrated, deployed):
        assert row["accuracy"] >= base["accuracy"] - 0.02
        assert row["loss"] == base["accuracy"] - row["accuracy"]
        assert row["compression"] == 1 - row["size_mb"] / base["size_mb"]
    given, after = load_file(weights), _state(project, "02-calibrate")
    assert all(torch.equal(after[key], tensor) for key, tensor in given.items())


def test_a_calibration_that_changes_weights_is_fused_and_deployed_as_any_other(project, whole_run):
    options = {"equalize": True, "rounding": "learned", "bias_correction": True}
    project.write_recipe(
        {"quantize": {"quantizer": "iao", **options}},
        {"calibrate": {"batches": 4, "batch_size": 32}},
        "fuse",
        "deploy",
        weights=str(whole_run.out / "steps" / "01-train.safetensors"),
    )

    result = project.run()

    assert result.returncode == 0, result.stderr
    base, *_, deployed = project.rows()
    assert deployed["accuracy"] >= base["accuracy"] - 0.02
    before, after = _state(project, "01-quantize"), _state(project, "02-calibrate")
    assert before.keys() == after.keys()
    assert not torch.equal(before["0.weight"], after["0.weight"])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, make_project):
    """A run that trains on after its observers stopped."""
    project = make_project(tmp_path_factory.mktemp("tuned"))
    project.write_recipe(*QAFT)
    result = project.run()
    assert result.returncode == 0, result.stderr
    return project


def test_after_freezing_weights_learn_and_nothing_else_moves(tuned):
    before, after = _state(tuned, "03-train"), _state(tuned, "05-train")
    moved = {key for key in before if not torch.equal(before[key], after[key])}

    learned = set(load_file(tuned.out / "steps" / "01-train.safetensors"))
    statistics = {key for key in learned if "running" in key or "num_batches" in key}
    assert {"0.weight", "4.weight", "10.weight"} <= moved
    assert moved <= learned - statistics
    assert any("observer" in key for key in before)


def test_before_freezing_observers_move(tuned):
    first, later = _state(tuned, "02-quantize"), _state(tuned, "03-train")
    moved = {key for key in first if not torch.equal(first[key], later[key])}

    assert any("observer" in key for key in moved)


@pytest.mark.parametrize("moment", ["after 05-train.epoch.pt 1", "after 04-freeze.json 1"])
def test_a_frozen_run_that_was_killed_ends_with_the_same_bits(project, tuned, moment):
    project.write_recipe(*QAFT)
    assert project.run(MISHAP="killed", MISHAP_AT=moment).returncode == -9

    assert project.run().returncode == 0

    assert project.weights() == tuned.weights()
    assert project.rows() == tuned.rows()
