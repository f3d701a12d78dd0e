"""`micronet deploy`, `bench` and `eval` on what a run has left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from micronet import registry
from micronet.pipeline.folder import RunFolder
from micronet.techniques import Artifact

sys.path.append(str(Path(__file__).parents[1]))
import torch_engine

BACKENDS = [
    entry.name
    for entry in registry.list("deploy_backend")
    if entry.status == "ok" and registry.create("deploy_backend", entry.name).available() is None
]
STEPS = (
    {"train": {"epochs": 2, "batch_size": 32, "lr": 1e-2}},
    {"prune": {"pruner": "normal", "percent": 0.3}},
    {"quantize": {"quantizer": "iao"}},
    {"calibrate": {"batches": 2}},
    "fuse",
)
ENGINE = ("--backend", "torch_engine")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, make_project):
    """A finished run where the plugin of an engine is installed whose faults can be ordered."""
    project = make_project(tmp_path_factory.mktemp("ran"))
    torch_engine.install(project.folder)
    project.write_recipe(*STEPS)
    result = project.run()
    assert result.returncode == 0, result.stderr
    return project


def accuracy(project, step):
    return RunFolder(project.out).finished(step).row.accuracy


def json_of(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def deployed(ran):
    """What `micronet deploy` printed for the last model of the run."""
    return json_of(ran.micronet("deploy", "out", *ENGINE, "--json"))


def test_the_last_model_of_a_run_is_deployed_beside_its_float_model(ran, deployed):
    assert deployed["artifact"] == "out/deploy/05-fuse-torch_engine"
    assert deployed["accuracy"] == accuracy(ran, "05-fuse")
    figures = {"top1": 1, "max_error": 0, "mean_error": 0}
    assert deployed["parity"] == {**figures, "outputs": {"output": figures}}
    assert deployed["images"] == 128
    artifact = Artifact.read(ran.folder / deployed["artifact"])
    assert deployed["size_mb"] == artifact.size_bytes / 1e6
    floating = Artifact.read(artifact.directory / "float")
    assert deployed["float_size_mb"] == floating.size_bytes / 1e6


def test_an_artifact_is_evaluated_against_its_model_where_the_run_has_moved(ran, deployed):
    moved = ran.out.rename(ran.folder / "moved")
    artifact = deployed["artifact"].replace("out/", "moved/")
    found = json_of(ran.micronet("eval", artifact, "--data", "tiny:data", "--json"))
    moved.rename(ran.out)
    assert found["accuracy"] == found["torch_accuracy"] == accuracy(ran, "05-fuse")
    assert found["against"] == "moved/steps/05-fuse.json"
    assert found["parity"]["max_error"] == 0


def test_an_artifact_is_evaluated_against_another_model(ran, deployed):
    arguments = ("--data", "tiny:data", "--against", "out/steps/01-train.safetensors", "--json")
    found = json_of(ran.micronet("eval", deployed["artifact"], *arguments))
    assert found["accuracy"] == accuracy(ran, "05-fuse")
    assert found["torch_accuracy"] == accuracy(ran, "01-train")
    assert found["parity"]["top1"] < 1
    assert found["parity"]["mean_error"] > 0.5


def test_tables_go_to_stdout_and_remarks_to_stderr(ran):
    out = ("-o", "elsewhere")
    result = ran.micronet("deploy", "out/steps/01-train.safetensors", *ENGINE, *out)
    assert result.returncode == 0
    assert result.stderr == f"micronet: {torch_engine.REMARK}\n"
    assert f"{accuracy(ran, '01-train'):.2%} of 128 images" in result.stdout
    result = ran.micronet("eval", "elsewhere", "--data", "tiny:data")
    assert result.returncode == 0
    assert result.stdout.count(f"{accuracy(ran, '01-train'):.2%}") == 2


def test_a_packed_file_is_deployed_without_its_run(ran):
    assert ran.micronet("pack", "out", "-o", "a.safetensors").returncode == 0
    refused = ran.micronet("deploy", "a.safetensors", *ENGINE, "--data", "tiny:data")
    assert refused.returncode == 2
    assert "asks for the model 'tiny:model', which it can't choose for you." in refused.stderr
    own = ("--model", "tiny:model", "--data", "tiny:data", "--json")
    found = json_of(ran.micronet("deploy", "a.safetensors", *ENGINE, *own))
    assert found["artifact"] == "a-torch_engine"
    assert found["accuracy"] == accuracy(ran, "05-fuse")
    assert found["float_size_mb"] is None
    evaluated = json_of(ran.micronet("eval", "a-torch_engine", *own))
    assert evaluated["against"] == "a.safetensors"
    (ran.folder / "a.safetensors").unlink()
    alone = ran.micronet("eval", "a-torch_engine", "--data", "tiny:data", "--json")
    assert json_of(alone)["accuracy"] == accuracy(ran, "05-fuse")
    assert json_of(alone)["torch_accuracy"] is None
    assert "--against may name one" in alone.stderr


def test_an_engine_that_is_wrong_is_refused_and_what_was_there_stays(ran, deployed):
    file = ran.folder / deployed["artifact"] / "model.pt"
    before = file.read_bytes()
    refused = ran.micronet("deploy", "out", *ENGINE, "--set", "spoils=_10")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "They first part at '10', whose outputs are off by" in refused.stderr
    assert file.read_bytes() == before
    assert not list(file.parents[1].glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("deploy nowhere --backend torch_engine", "no run, checkpoint or packed file at nowhere."),
        ("deploy out --backend torch_enjine", "Did you mean 'torch_engine'?"),
        (
            "deploy out --backend torch_engine --dynamic depth",
            "dynamic must be a list of 'batch' |",
        ),
        ("deploy out --backend torch_engine --precision fp16", "has no option 'precision'."),
        ("deploy out --backend torch_engine --set spoils", "write it as OPTION=VALUE"),
        ("deploy out --backend torch_engine -o out", "out is no artifact's folder"),
        ("deploy out/steps/03-quantize.json --backend torch_engine", "have seen no data yet"),
        ("deploy out/steps/09-fuse.json --backend torch_engine", "no finished step of a run"),
        ("bench out", "out holds no readable artifact"),
        ("eval ARTIFACT --data digts", "Did you mean 'digits'?"),
        ("eval ARTIFACT --data tiny:data --against x", "no run, checkpoint or packed file at x."),
        ("eval ARTIFACT --data digits", "must give labels below 4, the model's number of classes"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(ran, deployed, arguments, sentence):
    words = [deployed["artifact"] if word == "ARTIFACT" else word for word in arguments.split()]
    before = sorted(ran.folder.rglob("*"))
    refused = ran.micronet(*words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert sentence in " ".join(refused.stderr.replace("│", "").split())
    assert "Traceback" not in refused.stderr
    assert sorted(ran.folder.rglob("*")) == before


def test_a_run_that_started_from_weights_is_deployed_without_them(ran):
    (ran.folder / "start.safetensors").write_bytes(
        (ran.out / "steps" / "01-train.safetensors").read_bytes()
    )
    ran.write_recipe("evaluate", weights="start.safetensors")
    assert ran.micronet("run", "tiny.yaml", "--out", "given").returncode == 0
    (ran.folder / "start.safetensors").unlink()
    found = json_of(ran.micronet("deploy", "given/steps/00-model.json", *ENGINE, "--json"))
    assert found["accuracy"] == accuracy(ran, "01-train")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from micronet.cli import main
main()
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_bench_times_an_engine_and_its_float_model_without_torch(ran, backend):
    found = json_of(ran.micronet("deploy", "out", "--backend", backend, "--json"))
    command = [sys.executable, "-c", WITHOUT_TORCH, "bench", found["artifact"], "--batch", "2"]
    done = subprocess.run(
        [*command, "--threads", "1", "--json"],
        cwd=ran.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    timed = json_of(done)
    for latency in (timed["latency"], timed["float_latency"]):
        assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
        assert latency["images_per_second"] > 0
    assert timed["speedup"] == timed["float_latency"]["p50_ms"] / timed["latency"]["p50_ms"]
    assert (timed["batch"], timed["threads"]) == (2, 1)


@pytest.mark.parametrize("change", ["images * 5", "images / 5", "images + 2", "255 * images"])
def test_images_that_are_prepared_otherwise_are_told(ran, deployed, change):
    (ran.folder / "otherwise.py").write_text(
        "import tiny\n"
        "from torch.utils.data import TensorDataset\n\n"
        "def data():\n"
        "    train, test = tiny.data()\n"
        "    images = test.images\n"
        f"    return train, TensorDataset({change}, test.labels)\n"
    )
    done = ran.micronet("eval", deployed["artifact"], "--data", "otherwise:data")
    assert "These images seem to be prepared otherwise: channel 0 has a mean of" in done.stderr
    same = ran.micronet("eval", deployed["artifact"], "--data", "tiny:data")
    assert "prepared otherwise" not in same.stderr


def test_a_card_says_what_images_and_classes_its_model_knows(project):
    project.write_recipe(
        {"train": {"epochs": 1}},
        "deploy",
        model={"name": "nin", "cfg": [8] * 8},
        data="digits",
    )
    done = project.run()
    assert done.returncode == 0, done.stderr
    images = Artifact.read(project.out / "deploy" / "02-onnxruntime").images
    contents = registry.create("dataset", "digits").contents
    assert (images.labels, images.mean, images.std) == (
        contents.labels,
        contents.mean,
        contents.std,
    )
    assert len(images.channel_means) == len(images.channel_stds) == 3
