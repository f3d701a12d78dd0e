"""The command line: exit codes, errors in words, JSON on stdout and nothing else there."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from micronet import registry

VERSION = version("micronet")
RECIPE = "model: nin\ndata: digits\nsteps:\n  - train: {epochs: 0}\n"
ENTRY_KEYS = {
    "kind", "name", "distribution", "version", "summary", "status", "error", "install"
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    return "r.yaml"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["validate", "quickstrat"], "Did you mean 'quickstart'?"),
        (["run", "absent.yaml"], "absent.yaml can't be read"),
        (["validate", "r.yaml"], "r.yaml:4: train: epochs must be at least 1, got 0."),
        (["run", "r.yaml"], "r.yaml:4: train: epochs must be at least 1, got 0."),
        (["validate", "quickstart", "--set", "seed"], "write it as path=value"),
        (["run", "quickstart", "--set", "steps.99.train.lr=1"], "steps.99 does not exist"),
        (["validate", "quickstart", "--set", "model.x=1"], "model is no mapping or list"),
        (["show", "quantizer", "ioa"], "Did you mean 'iao'?"),
        (["show", "quantiser", "iao"], "Did you mean 'quantizer'?"),
        (["list-plugins", "--kind", "quantiser"], "Did you mean 'quantizer'?"),
        (["-p", "iao", "list-plugins"], "write no:NAME"),
        (["run", "quickstart", "--cpu", "--gpu-id", "0"], "exclude each other"),
        (["run", "quickstart", "--gpu-id", "first"], "write numbers, as in 0 or 0,1"),
        (["run", "quickstart", "--gpu-id", "0,0"], "write numbers, as in 0 or 0,1"),
        (["run"], "RECIPE"),
        (["list-plugin"], "list-plugin"),
        (["run", "quickstart", "--fresch"], "--fresch"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(micronet_cli, recipe, tmp_path, arguments, words):
    done = micronet_cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--traceback", "validate", "r.yaml"],
        ["validate", "--traceback", "r.yaml"],
        ["validate", "r.yaml", "--traceback"],
    ],
)
def test_traceback_anywhere_in_the_line_shows_where_an_error_came_from(
    micronet_cli, recipe, arguments
):
    done = micronet_cli(*arguments)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "file.py" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "micronet: r.yaml:4: train: epochs must be at least 1, got 0."
    )


def test_validate_prints_the_recipe_with_every_option(micronet_cli, recipe, tmp_path):
    done = micronet_cli("validate", recipe, "--set", "steps.0.train.epochs=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "epochs: 2" in done.stdout
    assert "schedule: cosine" in done.stdout
    (tmp_path / "again.yaml").write_text(done.stdout)
    assert micronet_cli("validate", "again.yaml").stdout == done.stdout
    assert (tmp_path / recipe).read_text() == RECIPE


def test_set_may_be_given_several_times(micronet_cli):
    changes = ["--set", "steps.0.train.epochs=7", "--set", "seed=99"]
    done = micronet_cli("validate", "quickstart", *changes)
    assert "seed: 99" in done.stdout
    assert "epochs: 7" in done.stdout


def test_list_plugins_as_json_has_the_promised_keys(micronet_cli):
    done = micronet_cli("list-plugins", "--json")
    entries = json.loads(done.stdout)
    assert all(set(entry) == ENTRY_KEYS for entry in entries)
    (iao,) = [entry for entry in entries if (entry["kind"], entry["name"]) == ("quantizer", "iao")]
    assert (iao["distribution"], iao["status"], iao["error"]) == ("micronet", "ok", None)
    assert (done.returncode, done.stderr) == (0, "")


def test_list_plugins_shows_a_row_for_each_technique(micronet_cli):
    done = micronet_cli("list-plugins")
    lines = [line.split() for line in done.stdout.splitlines()]
    for entry in registry.list():
        assert any(line[:2] == [entry.kind, entry.family] for line in lines)


def test_list_plugins_of_a_kind_shows_that_kind_only(micronet_cli):
    entries = json.loads(micronet_cli("list-plugins", "--kind", "observer", "--json").stdout)
    assert {"minmax", "moving_average"} <= {entry["name"] for entry in entries}
    assert {entry["kind"] for entry in entries} - {None} == {"observer"}


def test_show_prints_documentation_and_options(micronet_cli):
    done = micronet_cli("show", "quantizer", "iao")
    assert done.stdout.startswith(f"quantizer iao, from micronet {VERSION}\n")
    assert "rounded half to even" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["w_bits"]]
    assert row.split()[:6] == ["w_bits", "int", "8", "between", "2", "and"]


def test_show_marks_a_required_option(micronet_cli):
    done = micronet_cli("show", "dataset", "image_folder")
    (row,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["root"]]
    assert row.split()[1:3] == ["str", "required"]


def test_show_as_json_has_the_promised_keys(micronet_cli):
    shown = json.loads(micronet_cli("show", "pruner", "normal", "--json").stdout)
    assert set(shown) == {
        "kind", "name", "distribution", "version", "summary", "doc", "options"
    }  # fmt: skip
    percent, *_ = shown["options"]
    assert percent == {
        "name": "percent",
        "type": "float",
        "default": 0.5,
        "required": False,
        "range": "above 0 and at most 0.95",
        "doc": "Fraction to remove, of what target says.",
    }


def test_recipes_lists_the_shipped_recipes(micronet_cli):
    listed = json.loads(micronet_cli("recipes", "--json").stdout)
    assert "quickstart" in {recipe["name"] for recipe in listed}
    assert all(set(recipe) == {"name", "summary"} for recipe in listed)
    assert "quickstart" in micronet_cli("recipes").stdout


def test_schema_prints_json(micronet_cli):
    schema = json.loads(micronet_cli("schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_version_prints_the_version_only(micronet_cli):
    assert micronet_cli("--version").stdout == f"{VERSION}\n"


def test_help_names_every_command(micronet_cli):
    done = micronet_cli("--help")
    assert done.returncode == 0
    commands = "run deploy bench eval validate recipes schema list-plugins show"
    for command in commands.split():
        assert command in done.stdout


def test_the_installed_script_is_the_same_command():
    script = Path(sys.executable).with_name("micronet")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{VERSION}\n"


def test_a_reader_that_closes_the_pipe_early_sees_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        command = [sys.executable, "-m", "micronet", "schema"]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_output_in_a_plain_ascii_locale_is_no_error(micronet_cli):
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = micronet_cli("list-plugins", env=ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert "iao" in done.stdout


def test_a_users_module_that_exits_is_no_success(micronet_cli, tmp_path):
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "r.yaml").write_text("model: mine:net\ndata: digits\nsteps: [train]\n")
    done = micronet_cli("validate", "r.yaml")
    assert done.returncode == 2
    assert "mine" in done.stderr


INTERRUPT_AT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""
DEAF = """
try:
    import colorsys
except BaseException:
    raise ImportError("initialization failed")
"""


@pytest.mark.parametrize(
    "module", ["micronet.streams", "typer", "rich.table", "pluggy", "micronet_zoo", "colorsys"]
)
def test_an_interrupt_while_modules_are_imported_ends_with_130(micronet_cli, tmp_path, module):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT_AT)
    (tmp_path / "deaf.py").write_text(DEAF)
    (tmp_path / "r.yaml").write_text("model: deaf:net\ndata: digits\nsteps: [train]\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = micronet_cli("validate", "r.yaml", env={"PYTHONPATH": path, "INTERRUPT_AT": module})
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted. What is finished is kept; the same command goes on.\n"
