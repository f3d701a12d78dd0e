"""The table of a run, and the file that programs read."""

import json

import attrs
import pytest

from micronet.pipeline.folder import Record, RunFolder
from micronet.pipeline.results import Results, Row
from micronet.storage.files import write_json
from micronet.techniques import Figure

ROW = Row(step="02-deploy", type="iao, engine", w_bits=8, a_bits=8, artifact="deploy/02-engine")
TIMED = attrs.evolve(
    ROW, latency_ms=25.0, float_latency_ms=700.0, speedup=28.0, figures={"accuracy": 0.5}
)
ACCURACY = Figure("accuracy", "Acc")


@pytest.mark.parametrize("disturbed", [False, None])
def test_times_of_a_quiet_machine_bear_no_mark(disturbed):
    table = Results([attrs.evolve(TIMED, disturbed=disturbed)], [ACCURACY]).to_markdown()
    assert "| 25 | 700 | 28.00x |" in table
    assert "*" not in table


def test_times_of_a_busy_machine_bear_a_mark_and_nothing_else_does():
    quiet = attrs.evolve(TIMED, disturbed=False)
    table = Results([quiet, attrs.evolve(TIMED, disturbed=True)], [ACCURACY]).to_markdown()
    assert "| 50.00% " in table
    assert "| 25 | 700 | 28.00x |" in table
    assert "| 25* | 700* | 28.00x* |" in table
    assert table.endswith("\n\nFigures with * were timed on a busy machine: do not trust them.\n")


def test_a_row_of_an_earlier_version_is_read(tmp_path):
    folder = RunFolder(tmp_path)
    file = folder.record("02-deploy")
    file.parent.mkdir()
    folder.finish("02-deploy", Record(TIMED))
    written = json.loads(file.read_text("utf-8"))
    del written["row"]["disturbed"], written["sha256"]
    write_json(file, written)
    assert folder.finished("02-deploy").row.speedup == TIMED.speedup
