"""The recipe decides numbers; what else could is recorded, and told when a run goes on."""

import json

import pytest

from micronet.storage.files import write_json

HARMFUL = {
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_DYNAMO_BACKEND": "EAGER",
    "ACCELERATE_USE_FSDP": "true",
}
BY_A_LAUNCHER = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_USE_CPU": "True",
}
OTHER_CONDITIONS = "goes on under other conditions"


@pytest.fixture
def short(project):
    project.write_recipe({"train": {"epochs": 1, "batch_size": 32, "lr": 1e-2}})
    return project


def _environment(project):
    return json.loads((project.out / "environment.json").read_text("utf-8"))


def _run(project, **environment):
    result = project.run(**environment)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.parametrize("name", HARMFUL)
def test_variables_of_accelerate_change_no_bit_and_are_named(short, name):
    _run(short)
    honest = short.weights()

    told = _run(short, **{name: HARMFUL[name]}).stderr

    assert f"{name} (ignored) was not there, is now {HARMFUL[name]}" in told
    lines = short.run("--fresh", **{name: HARMFUL[name]}).stderr.splitlines()
    sentence = f"Ignored, so that the environment changes no numbers: {name}={HARMFUL[name]}."
    assert lines.count(f"micronet: {sentence}") == 1
    assert short.weights() == honest
    assert _environment(short)["ignored"] == {name: HARMFUL[name]}


def test_what_a_launcher_sets_without_effect_is_not_named(short):
    assert "Ignored" not in _run(short, **BY_A_LAUNCHER).stderr
    assert _environment(short)["ignored"] == {}


def test_other_commands_name_them_too(short):
    _run(short)
    result = short.micronet("sensitivity", "out", "--fractions", "0.5", **HARMFUL)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("Ignored") == 1
    assert all(f"{name}={value}" in result.stderr for name, value in HARMFUL.items())


def test_variables_that_change_kernels_are_recorded_and_told_when_a_run_goes_on(short):
    _run(short, ONEDNN_DEFAULT_FPMATH_MODE="BF16")
    assert _environment(short)["variables"] == {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
    told = _run(short).stderr
    assert OTHER_CONDITIONS in told
    assert "ONEDNN_DEFAULT_FPMATH_MODE was BF16, is now not there" in told


def test_a_run_of_an_earlier_version_goes_on_without_a_word(short):
    _run(short)
    apart = ("ignored", "variables", "sha256")
    earlier = {k: v for k, v in _environment(short).items() if k not in apart}
    write_json(short.out / "environment.json", earlier)
    assert OTHER_CONDITIONS not in _run(short).stderr


def test_a_device_that_does_not_exist_is_a_sentence(short):
    _run(short)
    result = short.micronet("sensitivity", "out", ACCELERATE_TORCH_DEVICE="warp")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Accelerate can't start: RuntimeError: Expected one of" in result.stderr
    assert "Traceback" not in result.stderr
