"""A run that somebody handed over chooses no code, no place, and nothing outside of its folder."""

import json
import shutil

import pytest
import yaml

from micronet.pipeline.folder import RunFolder
from micronet.storage.files import sum_of_json, write_json

NAMED = ("--model", "tiny:model", "--data", "tiny:data")


@pytest.fixture
def ran(whole_run, make_project, tmp_path):
    """A finished run of this user's, in another folder than it was made in."""
    project = make_project(tmp_path)
    shutil.copytree(whole_run.out, project.out)
    return project


@pytest.fixture
def elsewhere(tmp_path):
    """What makes a process one of another user, or of another machine."""
    return {"XDG_STATE_HOME": str(tmp_path / "another home")}


def rewritten(out, change):
    """The recipe of a run changed by somebody who knows how sums are taken."""
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    change(recipe)
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    start = json.loads((out / "environment.json").read_text())
    del start["sha256"]
    write_json(out / "environment.json", {**start, "recipe_sum": sum_of_json(recipe)})


def with_code(recipe):
    recipe["model"] = {"name": "theirs:model"}
    recipe["data"] = {"name": "theirs:data"}


COMMANDS = {
    "deploy": ("deploy", "out", "--backend", "onnxruntime"),
    "sensitivity": ("sensitivity", "out", "--fractions", "0.5"),
}


def with_loss_and_teacher(recipe):
    for step in recipe["steps"]:
        if "train" in step:
            step["train"].update(loss="theirs:loss", teacher="theirs:teacher")


@pytest.mark.parametrize("command", COMMANDS)
def test_losses_and_teachers_of_a_run_are_needed_by_no_other_command(ran, command):
    (ran.folder / "theirs.py").write_text("open('ran', 'w')")
    rewritten(ran.out, with_loss_and_teacher)
    done = ran.micronet(*COMMANDS[command], *NAMED)
    assert done.returncode == 0, done.stderr
    assert not (ran.folder / "ran").exists()


def test_a_run_that_is_refused_imports_no_loss_that_its_folder_names(ran):
    (ran.folder / "theirs.py").write_text("open('ran', 'w')")
    rewritten(ran.out, with_loss_and_teacher)
    refused = ran.run()
    assert refused.returncode == 2, refused.stderr
    assert not (ran.folder / "ran").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_code_that_only_a_run_names_is_not_imported(ran, command):
    (ran.folder / "theirs.py").write_text("open('ran', 'w')")
    rewritten(ran.out, with_code)
    refused = ran.micronet(*COMMANDS[command])
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "out was not started by you on this machine" in refused.stderr
    assert "name it yourself: --model theirs:model --data theirs:data." in refused.stderr
    assert not (ran.folder / "ran").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_of_another_user_is_used_once_its_code_is_named(ran, elsewhere, command):
    mine = ran.micronet(*COMMANDS[command])
    assert ran.micronet(*COMMANDS[command], **elsewhere).returncode == 2
    named = ran.micronet(*COMMANDS[command], *NAMED, **elsewhere)
    assert named.returncode == 0, named.stderr
    assert named.stdout == mine.stdout


def test_ones_own_code_takes_the_place_of_what_a_run_names(ran):
    rewritten(ran.out, with_code)
    deployed = ran.micronet(*COMMANDS["deploy"], *NAMED)
    assert deployed.returncode == 0, deployed.stderr


def test_an_engine_is_evaluated_without_the_code_that_its_run_names(ran):
    deployed = ran.micronet(*COMMANDS["deploy"], "--json")
    artifact = json.loads(deployed.stdout)["artifact"]
    (ran.folder / "theirs.py").write_text("open('ran', 'w')")
    rewritten(ran.out, with_code)
    command = ("eval", artifact, "--data", "tiny:data", "--json")
    alone = ran.micronet(*command)
    assert alone.returncode == 0, alone.stderr
    assert "name it yourself: --model theirs:model." in alone.stderr
    assert json.loads(alone.stdout)["torch_accuracy"] is None
    compared = ran.micronet(*command, "--model", "tiny:model")
    assert json.loads(compared.stdout)["parity"]["top1"] == 1
    assert not (ran.folder / "ran").exists()


def test_a_place_that_only_a_run_names_is_not_looked_at(ran):
    def to_a_place(recipe):
        recipe["data"] = {"name": "cifar10", "root": "made by a recipe"}

    rewritten(ran.out, to_a_place)
    refused = ran.micronet(*COMMANDS["deploy"], "--model", "tiny:model")
    assert refused.returncode == 2
    assert "the data 'cifar10' with root: 'made by a recipe'" in refused.stderr
    assert "name it yourself: --data cifar10." in refused.stderr
    assert not (ran.folder / "made by a recipe").exists()


def test_a_run_of_registered_names_needs_no_signature(project, elsewhere):
    small = {"name": "nin", "cfg": [4] * 8}
    project.write_recipe("evaluate", model=small, data="digits")
    assert project.run().returncode == 0
    deployed = project.micronet(*COMMANDS["deploy"], **elsewhere)
    assert deployed.returncode == 0, deployed.stderr


def test_a_run_that_goes_on_with_anothers_steps_says_so_and_is_ones_own_then(ran, elsewhere):
    taken_over = ran.run(**elsewhere)
    assert taken_over.returncode == 0, taken_over.stderr
    assert "started by somebody else or on another machine" in taken_over.stderr
    assert "started by somebody else" not in ran.run(**elsewhere).stderr
    assert ran.micronet(*COMMANDS["sensitivity"], **elsewhere).returncode == 0


@pytest.mark.parametrize("home", ["/dev/null", "key is a folder"])
def test_where_no_key_can_be_kept_a_run_says_what_will_be_asked(project, home):
    if home == "key is a folder":
        (project.folder / home / "micronet/own-runs.key").mkdir(parents=True)
        home = str(project.folder / home)
    project.write_recipe("evaluate")
    done = project.run(XDG_STATE_HOME=home)
    assert done.returncode == 0, done.stderr
    assert "will ask for tiny:model and tiny:data again" in done.stderr
    assert project.micronet(*COMMANDS["deploy"], XDG_STATE_HOME=home).returncode == 2
    deployed = project.micronet(*COMMANDS["deploy"], *NAMED, XDG_STATE_HOME=home)
    assert deployed.returncode == 0, deployed.stderr


def test_a_damaged_key_is_replaced(project, elsewhere, tmp_path):
    key = tmp_path / "another home/micronet/own-runs.key"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"short")
    project.write_recipe("evaluate")
    assert project.run(**elsewhere).returncode == 0
    assert project.micronet(*COMMANDS["deploy"], **elsewhere).returncode == 0
    assert len(key.read_bytes()) == 32
    assert key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key.parent.iterdir()] == [key.name]


def test_a_recipe_that_was_changed_is_told(ran):
    text = (ran.out / "recipe.yaml").read_text().replace("a_bits: 8", "a_bits: 7")
    (ran.out / "recipe.yaml").write_text(text)
    refused = ran.micronet(*COMMANDS["deploy"])
    assert refused.returncode == 2
    assert "recipe.yaml was changed since it was written" in refused.stderr


def test_nothing_is_written_behind_a_link_in_a_run(ran):
    outside, others = ran.folder / "outside", ran.folder / "others"
    outside.write_text("kept")
    others.mkdir()
    for name in ("sensitivity-normal.png", "results.md", ".lock", "deploy"):
        (ran.out / name).unlink(missing_ok=True)
        (ran.out / name).symlink_to(others if name == "deploy" else outside)
    refused = ran.micronet(*COMMANDS["deploy"])
    assert refused.returncode == 2
    assert "out/deploy is a link" in refused.stderr
    assert ran.run().returncode == 2
    (ran.out / ".lock").unlink()
    (ran.out / "deploy").unlink()
    assert ran.run().returncode == 0
    assert ran.micronet(*COMMANDS["sensitivity"]).returncode == 0
    assert list(others.iterdir()) == []
    assert outside.read_text() == "kept"


def test_terminal_codes_of_a_run_do_not_reach_the_terminal(ran):
    start = json.loads((ran.out / "environment.json").read_text())
    del start["sha256"]
    start |= {"cpu": "\x1b]0;theirs\x07", "packages": [], "code": 3}
    write_json(ran.out / "environment.json", start)
    done = ran.run()
    assert done.returncode == 0, done.stderr
    assert "\\x1b]0;theirs" in done.stderr
    assert "\x1b" not in done.stderr


def test_what_is_lost_is_told_and_not_done_again(ran):
    for name in ("steps/02-prune.json", "steps/03-train.safetensors"):
        kept = (ran.out / name).read_bytes()
        (ran.out / name).unlink()
        refused = ran.run()
        assert refused.returncode == 2
        assert f"out/{name}" in refused.stderr
        assert "--fresh starts the run again." in refused.stderr
        (ran.out / name).write_bytes(kept)
    assert ran.run().returncode == 0


def test_a_record_lists_all_that_its_step_wrote(whole_deployed_run):
    out = whole_deployed_run.out
    records = [RunFolder(out).finished(path.stem) for path in sorted(out.glob("steps/*.json"))]
    listed = {name for record in records for name in record.files}
    files = {name for name in whole_deployed_run.files() if (out / name).is_file()}
    apart = {name for name in files if name.endswith(".json") and name.startswith("steps/")}
    apart |= {".lock", "environment.json", "recipe.yaml", "results.json", "results.md"}
    assert listed == files - apart


ARTIFACT = "deploy/07-onnxruntime"


@pytest.mark.parametrize("name", ["float/notes.txt", "more/notes.txt"])
def test_an_artifact_with_somebodys_file_in_it_is_not_replaced(project, whole_deployed_run, name):
    shutil.copytree(whole_deployed_run.out, project.out)
    project.write_longer_recipe("deploy")
    notes = project.out / ARTIFACT / name
    notes.parent.mkdir(exist_ok=True)
    notes.write_text("kept")
    (project.out / "steps/07-deploy.json").unlink()
    deploy = ("deploy", "out", "--backend", "onnxruntime", "-o", f"out/{ARTIFACT}")
    for done in (project.micronet(*deploy), project.run(), project.run("--fresh")):
        assert done.returncode == 2
        assert f"out/{ARTIFACT}/{name} is of no artifact" in done.stderr
    assert notes.read_text() == "kept"
    assert (project.out / "steps/01-train.json").exists()
    notes.unlink()
    assert project.run().returncode == 0


def test_fresh_removes_no_folder_in_the_place_of_a_file(ran):
    (ran.out / "steps/03-train.json").unlink()
    thesis = ran.out / "steps/03-train.json/thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("kept")
    refused = ran.run("--fresh")
    assert refused.returncode == 2
    assert "out/steps/03-train.json is a folder" in refused.stderr
    assert thesis.read_text() == "kept"
