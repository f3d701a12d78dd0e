"""`micronet sensitivity` on a finished run: a table on stdout, a picture in the folder."""

import json
import shutil

import pytest

from micronet.pipeline.folder import RunFolder


@pytest.fixture
def finished(project, whole_run):
    """A copy of a finished run."""
    shutil.copytree(whole_run.out, project.out)
    return project


def test_each_layer_is_pruned_alone_and_the_accuracies_are_plotted(finished):
    before = finished.weights()
    arguments = ("sensitivity", "out", "--fractions", "0.1,0.9")

    done = finished.micronet(*arguments, "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["step"] == "03-train"
    assert found["value"] == RunFolder(finished.out).finished("03-train").row.accuracy
    assert [group["layers"] for group in found["groups"]] == [["0"], ["4"]]
    for group in found["groups"]:
        values = group["values"]
        assert values["0.9"] < values["0.1"] <= found["value"] + 0.1
    picture = finished.out / "sensitivity-normal.png"
    assert done.stderr.splitlines()[-1] == "Plotted into out/sensitivity-normal.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert finished.weights() == before


def test_the_table_has_a_row_for_each_layer(finished):
    done = finished.micronet("sensitivity", "out", "--fractions", "0.1,0.5", "--pruner", "gc")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if "%" in line]
    assert lines[0][:2] == ["03-train:", "accuracy"]
    assert lines[1] == ["Pruned", "alone", "-10%", "-50%"]
    assert [line[0] for line in lines[2:]] == ["0", "4"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["elsewhere"], "There is no run at elsewhere."),
        (["out", "--pruner", "nrmal"], "Did you mean 'normal'?"),
        (["out", "--fractions", "half"], "write numbers, as in 0.1,0.5"),
        (["out", "--fractions", "1.5"], "percent must be"),
        (["out", "--pruner", "regular"], "0: its 6 channels are fewer than the multiple 8"),
    ],
)
def test_bad_input_is_said_in_words(finished, arguments, words):
    done = finished.micronet("sensitivity", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split())


def test_each_layer_is_quantized_alone(finished):
    before = finished.weights()
    arguments = ("sensitivity", "out", "--quantizer", "iao", "--option", "w_bits=2")
    done = finished.micronet(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["step"] == "03-train"
    assert found["value"] == RunFolder(finished.out).finished("03-train").row.accuracy
    assert [layer["layer"] for layer in found["layers"]] == ["0", "4", "10"]
    finer = finished.micronet("sensitivity", "out", "--quantizer", "iao", "--json")
    for coarse, fine in zip(found["layers"], json.loads(finer.stdout)["layers"], strict=True):
        assert coarse["sqnr_db"] + 6 < fine["sqnr_db"]
    picture = finished.out / "sensitivity-iao.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert finished.weights() == before


def test_quantized_layers_come_in_a_table(finished):
    done = finished.micronet("sensitivity", "out", "--quantizer", "dorefa")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.strip(" ─━")]
    assert lines[1] == ["Quantized", "alone", "Acc", "SQNR", "(dB)"]
    assert [line[0] for line in lines[2:]] == ["4", "10"]  # the first stays in float


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--quantizer", "iao", "--option", "w_bits"],
            "--option w_bits: write it as OPTION=VALUE.",
        ),
        (["--quantizer", "iao", "--option", "bits=4"], "has no option 'bits'"),
        (["--quantizer", "ioa"], "Did you mean 'iao'?"),
        (["--option", "w_bits=4"], "needs --quantizer"),
    ],
)
def test_bad_quantizers_are_said_in_words(finished, arguments, words):
    done = finished.micronet("sensitivity", "out", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split())
