"""What the deploy step tells: remarks, how close the engine is, and where it goes wrong."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
import torch_engine

from micronet.techniques import Artifact

PREPARED = (
    {"train": {"epochs": 2, "batch_size": 32, "lr": 1e-2}},
    {"quantize": {"quantizer": "iao"}},
    {"calibrate": {"batches": 2}},
    "fuse",
)
ENGINE = {"backend": "torch_engine"}


@pytest.fixture
def with_engine(project):
    """A project where the plugin of an engine is installed whose faults can be ordered."""
    torch_engine.install(project.folder)
    return project


def test_the_rows_of_an_engine_that_computes_the_same_say_so(with_engine):
    with_engine.write_recipe(*PREPARED, {"deploy": ENGINE})
    result = with_engine.run()
    assert result.returncode == 0, result.stderr
    deployed = with_engine.rows()[-1]
    assert (deployed["parity"], deployed["parity_max_error"]) == (1, 0)
    assert deployed["parity_mean_error"] == 0
    assert f"  {torch_engine.REMARK}" in result.stderr.splitlines()
    artifact = Artifact.read(with_engine.out / deployed["artifact"])
    assert (artifact.directory / artifact.source).resolve() == (
        with_engine.out.resolve() / "steps" / "04-fuse.json"
    )


def test_latencies_of_a_busy_machine_are_marked_wherever_they_are_shown(with_engine):
    with_engine.write_recipe("evaluate", {"deploy": ENGINE})
    result = with_engine.run(CROWDED="1")
    assert result.returncode == 0, result.stderr
    written = json.loads((with_engine.out / "results.json").read_text("utf-8"))["rows"]
    assert [row["disturbed"] for row in written] == [None, None, True]
    for table in (result.stdout, (with_engine.out / "results.md").read_text("utf-8")):
        deployed = next(line for line in table.splitlines() if "02-deploy" in line)
        assert deployed.count("*") == 3
        assert f"{written[-1]['speedup']:.2f}x*" in deployed
        assert "Figures with * were timed on a busy machine: do not trust them." in table


def test_an_engine_that_is_wrong_fails_at_the_layer_that_is_told(with_engine):
    with_engine.write_recipe(*PREPARED, {"deploy": {**ENGINE, "spoils": "_4"}})
    result = with_engine.run()
    assert result.returncode == 2
    assert "torch_engine and the simulated model agree on" in result.stderr
    assert (
        "of 128 test images; min_parity is 99.50%. They first part at '4', whose" in result.stderr
    )
    assert not list(with_engine.out.glob("deploy/*"))
    assert [row["step"] for row in with_engine.rows()][-1] == "04-fuse"
