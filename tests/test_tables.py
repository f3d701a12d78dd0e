"""Tables fit the terminal where they can, and no number is ever cut."""

import re

import pytest

from micronet.pipeline.results import Results, Row
from micronet.tables import print_table, print_tables_that_fit
from micronet.techniques import Figure

ROW = Row(
    step="07-deploy",
    type="normal + iao, onnxruntime",
    w_bits=8,
    a_bits=8,
    figures={"accuracy": 0.9917},
    gflops=0.0894,
    params_m=0.363,
    size_mb=0.437,
    compression=0.8878,
    loss=-0.0056,
    latency_ms=0.645,
    float_latency_ms=4.02,
    speedup=6.23,
    parity=1.0,
    parity_max_error=1.03,
    parity_mean_error=0.0136,
    artifact="deploy/07-onnxruntime",
)
CELLS = [
    "99.17%",
    "0.0894",
    "0.363",
    "0.437",
    "88.78%",
    "-0.56%",
    "0.645",
    "4.02",
    "6.23x",
    "100.00%",
    "0.0136",
]


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What is printed to a terminal of so many columns, without colours."""

    def printed(columns, print_something):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("FORCE_COLOR", "1")
        print_something()
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return printed


def print_results():
    row = Row(step="04-quantize", type="normal + iao", w_bits=32, a_bits=32)
    results = Results([ROW, row], [Figure("accuracy", "Acc")])
    print_tables_that_fit(
        [results.cells()],
        [results.cells(engines=False), results.cells(steps=False)],
        [results.cells(engines=False, types=False), results.cells(steps=False, types=False)],
    )


@pytest.mark.parametrize("columns", [200, 120, 100, 80])
def test_results_fit_terminals_of_common_widths(terminal, columns):
    lines = terminal(columns, print_results).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= columns


@pytest.mark.parametrize("columns", [200, 120, 100, 80, 40])
def test_no_number_and_no_step_is_cut(terminal, columns):
    words = terminal(columns, print_results).split()
    assert set(CELLS) <= set(words)
    assert {"07-deploy", "04-quantize", "FP32"} <= set(words)
    assert "…" not in "".join(words)


def test_a_wide_terminal_gets_one_table_with_all_columns(terminal):
    text = terminal(200, print_results)
    assert "normal + iao, onnxruntime" in text
    assert text.count("07-deploy") == 1


def test_a_file_gets_whole_lines(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    print_table(["Name", "Summary"], [["iao", "one two three four five six seven eight nine ten"]])
    assert "one two three four five six seven eight nine ten" in capsys.readouterr().out


def test_words_go_on_in_the_next_line_of_a_narrow_terminal(terminal):
    summary = "Affine integers of 2 to 16 bits for weights and activations"
    lines = terminal(40, lambda: print_table(["Name", "Summary"], [["iao", summary]])).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 40
    assert set(summary.split()) <= set(" ".join(lines).split())


def test_a_cell_in_brackets_is_as_wide_as_it_looks(capsys):
    print_table(["Shape"], [["[batch, 3, 8, 8]"]])
    assert "[batch, 3, 8, 8]" in capsys.readouterr().out
