"""Engines that take images as a camera gives them."""

import json

import numpy as np
import pytest
import torch

from micronet import registry
from micronet.techniques import Artifact

TINY = {"model": {"name": "nin", "cfg": [16] * 8}, "data": "digits"}
STEPS = (
    {"train": {"epochs": 5, "lr": 4e-3, "batch_size": 32, "schedule": "one_cycle"}},
    {"quantize": {"quantizer": "iao"}},
    {"calibrate": {"batches": 4}},
    "fuse",
)
INPUT = {"dtype": "uint8", "layout": "nhwc"}
BACKENDS = ["onnxruntime", "openvino"]


def deploy(backend, **options):
    return {"deploy": {"backend": backend, "input": INPUT, **options}}


def pixels(count):
    """Test images of the digits as uint8 [count, 32, 32, 3], and their labels."""
    _, test = registry.create("dataset", "digits").load()
    images = torch.stack([test[place][0] for place in range(count)])
    raw = ((images * 0.5 + 0.5) * 255).round().to(torch.uint8)
    return raw.permute(0, 2, 3, 1).numpy(), np.array(
        [int(test[place][1]) for place in range(count)]
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory, make_project):
    pytest.importorskip("openvino", reason="openvino is not installed")
    project = make_project(tmp_path_factory.mktemp("input"))
    plain = {"deploy": {"backend": "onnxruntime"}}
    project.write_recipe(*STEPS, *(deploy(backend) for backend in BACKENDS), plain, **TINY)
    done = project.run()
    assert done.returncode == 0, done.stderr
    return project


@pytest.mark.parametrize(("backend", "folder"), list(zip(BACKENDS, ("05", "06"), strict=True)))
def test_the_engine_takes_pixels_and_answers_as_the_table_says(ran, backend, folder):
    artifact = Artifact.read(ran.out / "deploy" / f"{folder}-{backend}")
    (spec,) = artifact.signature.input_specs
    assert (spec.dtype, spec.shape) == ("uint8", ("batch", 32, 32, 3))
    engine = registry.create("deploy_backend", backend).load(artifact, threads=1)
    images, labels = pixels(360)
    row = ran.rows()[int(folder) - 1]
    assert (engine(images).argmax(1) == labels).mean() == pytest.approx(row["accuracy"], abs=1e-9)
    assert row["parity"] >= 0.995
    assert abs(row["accuracy"] - ran.rows()[-1]["accuracy"]) < 0.01


def test_the_float_model_beside_it_takes_the_same(ran):
    beside = Artifact.read(ran.out / "deploy" / "05-onnxruntime" / "float")
    assert beside.signature.input_specs[0].dtype == "uint8"


@pytest.mark.parametrize("folder", ["05-onnxruntime", "06-openvino"])
def test_it_is_evaluated_and_timed_as_any_other(ran, folder):
    place = f"out/deploy/{folder}"
    done = ran.micronet("eval", place, "--data", "digits", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["accuracy"] == ran.rows()[int(folder[:2]) - 1]["accuracy"]
    timed = ran.micronet("bench", place, "--json")
    assert timed.returncode == 0, timed.stderr


def test_a_finished_run_is_deployed_so_too(ran):
    done = ran.micronet(
        "deploy", "out/steps/04-fuse.safetensors", "--backend", "onnxruntime",
        "-o", "channels_first", "--input", "{dtype: uint8, layout: nchw}", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spec = Artifact.read(ran.folder / "channels_first").signature.input_specs[0]
    assert (spec.dtype, spec.shape) == ("uint8", ("batch", 3, 32, 32))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"input": {"dtype": "int8"}}, "input: dtype must be one of 'uint8', 'float32'"),
        ({"input": {"std": [0, 1, 1]}}, "std must hold numbers above 0"),
        ({"input": {"colour": "bgr"}}, "input has no option 'colour'"),
        ({"dynamic": ["height"]}, "input with layout nhwc leaves only the batch free"),
    ],
)
def test_what_makes_no_sense_is_told_by_validate(project, options, sentence):
    project.write_recipe({"train": {"epochs": 1}}, deploy("onnxruntime", **options), **TINY)
    done = project.micronet("validate", "tiny.yaml")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "input needs mean and std, by which the data's images were prepared"),
        ({"mean": [0, 0], "std": [1, 1]}, "a mean and a std for each of 3 channels"),
        ({"mean": [0], "std": [1]}, "the images would have pixels from"),
    ],
)
def test_images_that_were_prepared_otherwise_are_refused(project, given, sentence):
    project.write_recipe({"train": {"epochs": 1}}, deploy("onnxruntime", input={**INPUT, **given}))
    done = project.run()
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.out / "deploy").exists() or not list((project.out / "deploy").iterdir())
