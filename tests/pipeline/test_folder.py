"""A run's folder belongs to one run at a time, of one recipe, and foreign files are left alone."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from micronet.errors import RunError
from micronet.pipeline.folder import RunFolder

TRAIN = {"train": {"epochs": 1, "batch_size": 32}}


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def test_a_second_run_in_a_folder_where_one_is_at_work_is_refused(project):
    project.write_recipe(TRAIN)
    fifo = project.folder / "fifo"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "micronet", "run", "tiny.yaml", "--out", "out"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "WAIT_FOR": str(fifo)}
    with subprocess.Popen(
        command,
        cwd=project.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as first:
        with fifo.open("w", encoding="utf-8"):  # the first run has the folder and waits for data
            second = project.run()
            fresh = project.run("--fresh")
        assert first.wait() == 0

    for refused in (second, fresh):
        assert refused.returncode == 2
        assert "Another run works in out." in refused.stderr
    assert [row["step"] for row in project.rows()] == ["01-train"]


def test_a_changed_recipe_in_the_same_folder_is_refused_and_names_the_change(whole_run):
    before = whole_run.weights()

    result = whole_run.run("--set", "steps.0.train.lr=0.5", "--set", "steps.3.quantize.w_bits=4")

    assert result.returncode == 2
    assert "steps.0.train.lr was 0.01, is now 0.5" in result.stderr
    assert "steps.3.quantize.w_bits was 8, is now 4" in result.stderr
    assert "--fresh" in result.stderr
    assert whole_run.weights() == before


def test_a_run_goes_on_when_its_techniques_have_got_options_since(project):
    project.write_recipe(TRAIN, {"quantize": {"quantizer": "iao"}}, TRAIN)
    project.run()
    stored = project.out / "recipe.yaml"
    older = [line for line in stored.read_text("utf-8").splitlines() if "equalize" not in line]
    stored.write_text("\n".join(older), "utf-8")

    result = project.run()

    assert result.returncode == 0, result.stderr
    assert result.stderr.count("done before") == 3
    changed = project.run("--set", "steps.1.quantize.equalize=true")
    assert "steps.1.quantize.equalize was false, is now true" in changed.stderr


def test_fresh_forgets_the_run_in_a_folder(project):
    project.write_recipe(TRAIN, TRAIN)
    project.run()
    project.write_recipe(TRAIN)

    result = project.run("--fresh")

    assert result.returncode == 0, result.stderr
    assert "done before" not in result.stderr
    assert [row["step"] for row in project.rows()] == ["01-train"]
    assert not list(project.out.glob("steps/02-*"))


@pytest.mark.parametrize("arguments", [(), ("--fresh",)], ids=["plain", "fresh"])
def test_a_folder_with_foreign_files_is_refused_and_left_alone(project, arguments):
    project.write_recipe(TRAIN)
    for name in ("thesis.txt", "deploy/server.py", "steps/notes.md", "cache/.page.tmp"):
        file = project.out / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("years of work", "utf-8")
    before = _contents(project.out)

    result = project.run(*arguments)

    assert result.returncode == 2
    assert "holds files that are no run's" in result.stderr
    assert _contents(project.out) == before


@pytest.mark.parametrize("name", ["recipe.yaml", "deploy/server.py", "steps/notes.md"])
def test_a_users_own_folder_with_a_recipe_in_it_survives_a_fresh_run_there(project, name):
    project.write_recipe(TRAIN)
    (project.folder / "tiny.yaml").rename(project.folder / "recipe.yaml")
    file = project.folder / name
    file.parent.mkdir(exist_ok=True)
    if name != "recipe.yaml":
        file.write_text("years of work", "utf-8")
    before = file.read_text("utf-8")

    project.micronet("run", "recipe.yaml", "--out", ".", "--fresh")

    assert file.exists()
    assert file.read_text("utf-8") == before


@pytest.mark.parametrize("name", ["notes.md", "steps/notes.md", "deploy/server.py"])
def test_fresh_keeps_foreign_files_in_a_runs_folder(project, name):
    project.write_recipe(TRAIN)
    project.run(MISHAP="killed", MISHAP_AT="after 01-train.safetensors 1")
    file = project.out / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("years of work", "utf-8")

    result = project.run("--fresh")

    assert result.returncode == 0, result.stderr
    assert file.exists()
    assert file.read_text("utf-8") == "years of work"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def refuse(*_):  # stands for a mounted NFS, which a test can't have
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match=r"The file system of .*out gives no locks"):  # noqa: SIM117
        with RunFolder(tmp_path / "out").locked():
            pass


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("loop", "--out must be a folder, and loop is a file."),
        (300 * "n", f"Can't write {300 * 'n'}: File name too long."),
        ("locked", "Can't write locked/.lock: Is a directory."),
    ],
    ids=["loop", "long", "locked"],
)
def test_a_folder_that_the_system_refuses_is_told(project, out, sentence):
    project.write_recipe(TRAIN)
    (project.folder / "loop").symlink_to("loop")
    (project.folder / "locked" / ".lock").mkdir(parents=True)
    done = project.micronet("run", "tiny.yaml", "--out", out)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
