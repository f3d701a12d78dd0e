"""The shipped quickstart recipe, from data to a measured engine, as its documentation promises."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import micronet
from micronet import registry
from micronet.techniques import Artifact

KEYS = [
    "step",
    "type",
    "w_bits",
    "a_bits",
    "accuracy",
    "figures",
    "gflops",
    "params_m",
    "size_mb",
    "compression",
    "loss",
    "latency_ms",
    "float_latency_ms",
    "speedup",
    "disturbed",
    "parity",
    "parity_max_error",
    "parity_mean_error",
    "artifact",
    "notes",
    "reasons",
    "curve",
]
pytestmark = pytest.mark.timeout(900)
"""The first test waits for the whole run: a minute, and more on a busy machine."""


@pytest.fixture
def project(tmp_path, quickstart):
    """A folder to work in, where the quickstart has run."""
    return Path(shutil.copytree(quickstart.folder, tmp_path / "project"))


@pytest.fixture(scope="module")
def rows(quickstart):
    return json.loads((quickstart.run / "results.json").read_text("utf-8"))["rows"]


def test_the_quickstart_has_a_row_for_every_step_with_every_column(rows):
    assert [row["step"] for row in rows] == [
        "01-train",
        "02-prune",
        "03-train",
        "04-quantize",
        "05-train",
        "06-fuse",
        "07-deploy",
    ]
    assert all(list(row) == KEYS for row in rows)


def test_the_quickstarts_engine_is_as_accurate_as_the_float_model_and_faster(rows):
    trained, *_, deployed = rows

    assert deployed["accuracy"] >= 0.97
    assert deployed["accuracy"] >= trained["accuracy"] - 0.005
    assert deployed["speedup"] > 1
    assert deployed["parity"] >= 0.995
    assert deployed["parity_mean_error"] < 0.5
    assert deployed["w_bits"] == deployed["a_bits"] == 8


def test_the_quickstarts_model_becomes_smaller(rows):
    trained, pruned, *_, deployed = rows

    assert pruned["gflops"] < 0.8 * trained["gflops"]
    assert pruned["params_m"] < 0.8 * trained["params_m"]
    assert deployed["size_mb"] < trained["size_mb"] / 4
    assert deployed["compression"] == 1 - deployed["size_mb"] / trained["size_mb"]
    assert deployed["loss"] == trained["accuracy"] - deployed["accuracy"]


def test_every_size_is_that_of_a_real_file(quickstart, rows):
    for row in rows:
        if row["artifact"]:
            file = Artifact.read(quickstart.run / row["artifact"]).path
        elif row["w_bits"] == 8:
            file = quickstart.run / "steps" / f"{row['step']}.packed.safetensors"
        else:
            file = quickstart.run / "steps" / f"{row['step']}.safetensors"
        assert row["size_mb"] == file.stat().st_size / 1e6, row["step"]


def test_the_quickstart_prints_what_its_files_say(quickstart, rows):
    assert all(row["step"] in quickstart.stdout for row in rows)
    text = (quickstart.run / "results.md").read_text("utf-8")
    table, others, *_ = (part.splitlines() for part in text.split("\n\n"))  # notes may follow
    assert others[0] == "| Step | Top-5 |"
    assert len(table) == 2 + len(rows)
    assert all(row["step"] in line for row, line in zip(rows, table[2:], strict=True))


def test_the_quickstarts_engine_takes_a_batch_of_another_size(quickstart, rows):
    artifact = Artifact.read(quickstart.run / rows[-1]["artifact"])
    runner = registry.create("deploy_backend", artifact.backend).load(artifact)
    assert artifact.input_shape[0] != 5
    random = np.random.default_rng(0)
    images = random.standard_normal((5, *artifact.input_shape[1:]), dtype=np.float32)

    logits = runner(images)

    assert logits.shape == (5, 10)
    one_by_one = np.concatenate([runner(images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(logits, one_by_one, rtol=0, atol=1e-4 * np.abs(logits).max())


def test_the_quickstarts_packed_model_computes_what_the_run_validated(
    project, forked_micronet, rows
):
    packed = forked_micronet(project, "pack", "runs/quickstart", "-o", "packed.safetensors")

    assert packed.returncode == 0, packed.stderr
    file = project / "packed.safetensors"
    fused = rows[-2]
    assert file.stat().st_size / 1e6 == fused["size_mb"]
    images, labels = registry.create("dataset", "digits").load()[1][:]
    # Laid out as the run does it: on some processors other kernels add up in another order.
    model = micronet.load_packed(file).to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found = torch.cat([model(part) for part in images.split(256)]).argmax(1)
    assert float((found == labels).double().mean()) == fused["accuracy"]


def test_a_float_run_has_nothing_to_pack(project, forked_micronet):
    checkpoint = "runs/quickstart/steps/01-train.safetensors"

    refused = forked_micronet(project, "pack", checkpoint, "-o", "x.safetensors")

    assert refused.returncode == 2
    assert "no quantized model" in refused.stderr
    assert not (project / "x.safetensors").exists()


def test_the_same_quickstart_again_prints_the_same_at_once(project, forked_micronet):
    run = project / "runs" / "quickstart"
    before = {path: path.stat().st_mtime_ns for path in (run / "steps").iterdir()}
    results = (run / "results.json").read_text("utf-8")

    again = forked_micronet(project, "run", "quickstart", "--json")

    assert again.returncode == 0, again.stderr
    assert again.stdout == results
    assert {path: path.stat().st_mtime_ns for path in (run / "steps").iterdir()} == before


def test_a_changed_quickstart_in_the_same_folder_is_refused(project, forked_micronet):
    changed = forked_micronet(project, "run", "quickstart", "--set", "steps.0.train.epochs=4")

    assert changed.returncode == 2
    assert "steps.0.train.epochs was 3, is now 4" in changed.stderr
    assert changed.stdout == ""
