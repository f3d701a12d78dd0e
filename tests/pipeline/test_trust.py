"""Files and folders that somebody else has changed are refused, and run no code."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file
from torchvision.models import WeightsEnum

import micronet
from micronet import registry
from micronet.errors import DataError, RecipeError
from micronet.storage import packing

KEY = "micronet.packed"


@pytest.fixture
def ran(whole_run, make_project, tmp_path):
    """A finished run to do harm to."""
    project = make_project(tmp_path)
    shutil.copytree(whole_run.out, project.out)
    return project


def rewritten(source, target, change):
    """A packed file with other words in its metadata, and the sums that fit."""
    with safe_open(source, framework="np") as file:
        content = json.loads(file.metadata()[KEY])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del content["sha256"]
    change(content)
    content = {"sha256": packing._sum(tensors, content), **content}
    save_file(tensors, target, {KEY: json.dumps(content)})


def poisoned(content):
    content["structure"]["recipe"]["model"] = {"name": "os:system", "command": "touch ran"}
    content["structure"]["recipe"]["data"] = {"name": "os:system", "command": "touch ran"}


def test_a_packed_file_runs_no_code_that_it_names(ran):
    file = ran.folder / "bad.safetensors"
    rewritten(ran.out / "steps/06-fuse.packed.safetensors", file, poisoned)
    with pytest.raises(RecipeError, match="asks for the model 'os:system'"):
        micronet.load_packed(file)
    refused = ran.micronet("deploy", "bad.safetensors", "--backend", "onnxruntime")
    assert refused.returncode == 2
    assert "name it yourself: --model os:system --data os:system." in refused.stderr
    assert not (ran.folder / "ran").exists()


def test_a_packed_file_chooses_no_place_for_data(ran):
    def to_a_place(content):
        content["structure"]["recipe"]["data"] = {"name": "cifar10", "root": "made by a file"}

    rewritten(
        ran.out / "steps/06-fuse.packed.safetensors", ran.folder / "a.safetensors", to_a_place
    )
    deploy = ("deploy", "a.safetensors", "--backend", "onnxruntime", "--model", "tiny:model")
    refused = ran.micronet(*deploy)
    assert refused.returncode == 2
    assert "the data 'cifar10' with root: 'made by a file'" in refused.stderr
    assert not (ran.folder / "made by a file").exists()
    assert ran.micronet(*deploy, "--data", "tiny:data").returncode == 0


def test_opening_a_packed_file_fetches_no_weights(tmp_path, monkeypatch):
    def fetch(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    name, options = "torchvision/squeezenet1_1", {"weights": "DEFAULT", "num_classes": 4}
    model = registry.create("model", name, **options).structure().eval()
    recipe = {"model": {"name": name, **options}, "data": "digits"}
    structure = {"recipe": recipe, "kept": [], "input_shape": [2, 3, 64, 64]}
    packing.save_packed(model, tmp_path / "a.safetensors", structure=structure)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(micronet.load_packed(tmp_path / "a.safetensors")(images), model(images))


def test_ones_own_code_makes_the_model_of_a_packed_file(ran, monkeypatch):
    monkeypatch.syspath_prepend(ran.folder)
    import tiny

    file = ran.out / "steps/06-fuse.packed.safetensors"
    model = micronet.load_packed(file, model=tiny.model)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 4)


DAMAGE = {
    "no structure": lambda content: content.update(structure=3),
    "no recipe": lambda content: content["structure"].update(recipe=[]),
    "sizes of nothing": lambda content: content["structure"].update(kept=[{"0": [1]}]),
    "a huge example": lambda content: content["structure"].update(input_shape=[10**6] * 4),
    "huge layers": lambda content: content["structure"]["kept"][0].update({"0": [2**27] * 4}),
    "a step of another kind": lambda content: content["structure"]["recipe"].update(steps=[3]),
    "codes of no width": lambda content: first(content).update(bits=0),
    "codes of 99 bits": lambda content: first(content).update(bits=99),
    "codes of another shape": lambda content: first(content).update(shape=[1]),
    "codes of a negative shape": lambda content: first(content).update(shape=[-1, 1]),
    "codes of text": lambda content: first(content).update(dtype="str"),
    "codes of nobody": lambda content: content["codes"].update(ghost=first(content)),
    "another sum": lambda content: content.update(sha256="0" * 64),
    "too much": lambda content: content.update(more=1),
}


def first(content):
    return next(iter(content["codes"].values()))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_packed_file_is_one_sentence(whole_run, tmp_path, monkeypatch, damage):
    monkeypatch.syspath_prepend(whole_run.folder)
    import tiny

    rewritten(whole_run.out / "steps/06-fuse.packed.safetensors", tmp_path / "a", DAMAGE[damage])
    with pytest.raises((DataError, RecipeError)) as caught:
        micronet.load_packed(tmp_path / "a", model=tiny.model)
    assert "\n" not in str(caught.value)


def test_a_bit_that_flipped_in_a_packed_file_is_found(whole_run, tmp_path):
    content = bytearray((whole_run.out / "steps/06-fuse.packed.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match="it was changed since it was written"):
        micronet.load_packed(tmp_path / "a")


WEIGHTS = "steps/06-fuse.safetensors"


def test_lost_weights_are_told_and_not_replaced(ran):
    (ran.out / WEIGHTS).unlink()
    refused = ran.micronet("deploy", "out", "--backend", "onnxruntime")
    assert refused.returncode == 2
    assert "06-fuse.safetensors can't be read: No such file" in refused.stderr
    assert "--fresh starts the run again." in refused.stderr


@pytest.mark.parametrize("file", [WEIGHTS, "steps/01-train.safetensors"])
def test_weights_that_were_changed_are_told(ran, file):
    content = bytearray((ran.out / file).read_bytes())
    content[-3] ^= 1
    (ran.out / file).write_bytes(content)
    refused = ran.micronet("deploy", "out", "--backend", "onnxruntime")
    assert refused.returncode == 2
    assert f"{file} was changed since it was written." in refused.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"row": 3}', "[" * 99_999, "\x00"])
@pytest.mark.parametrize("file", ["steps/03-train.json", "environment.json", "recipe.yaml"])
def test_a_damaged_record_is_a_sentence(ran, file, text):
    (ran.out / file).write_text(text)
    refused = ran.run()
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].startswith("micronet: ")
    assert "Traceback" not in refused.stderr


def test_a_folder_behind_a_link_is_left_alone(ran):
    others = ran.folder / "others"
    (ran.out / "steps").rename(others)
    (ran.out / "steps").symlink_to(others)
    before = sorted(path.name for path in others.iterdir())
    for arguments in ((), ("--fresh",)):
        refused = ran.run(*arguments)
        assert refused.returncode == 2
        assert "out/steps is a link" in refused.stderr
    assert sorted(path.name for path in others.iterdir()) == before


def test_fresh_leaves_what_the_run_did_not_write(ran):
    ideas, notes = ran.out / "steps/99-ideas.json", ran.out / "deploy/10-notes/a.txt"
    notes.parent.mkdir(parents=True)
    for file in (ideas, notes):
        file.write_text("{}")
    assert ran.run("--fresh").returncode == 0
    assert ideas.exists()
    assert notes.exists()


def test_fresh_follows_no_way_out_that_the_stored_recipe_names(ran):
    victim = ran.folder / "victim" / "a.txt"
    victim.parent.mkdir()
    victim.write_text("kept")
    (ran.out / "deploy/08-a").mkdir(parents=True)
    recipe = yaml.safe_load((ran.out / "recipe.yaml").read_text())
    recipe["steps"] += ["evaluate", {"deploy": {"backend": "a/../../../victim"}}]
    (ran.out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert (ran.out / "deploy/08-a/../../../victim/a.txt").exists()
    assert ran.run("--fresh").returncode == 0
    assert victim.exists()


def test_fresh_begins_anew_where_the_stored_recipe_is_damaged(ran):
    (ran.out / "recipe.yaml").write_text("{")
    result = ran.run("--fresh")
    assert result.returncode == 0
    assert "done before" not in result.stderr


def test_a_refused_run_imports_nothing_that_the_stored_recipe_names(ran):
    (ran.folder / "theirs.py").write_text("open('ran', 'w')")
    text = (ran.out / "recipe.yaml").read_text().replace("tiny:model", "theirs:model")
    (ran.out / "recipe.yaml").write_text(text)
    refused = ran.run()
    assert refused.returncode == 2
    assert "holds a run of another recipe" in refused.stderr
    assert not (ran.folder / "ran").exists()


def test_a_file_in_the_working_folder_hides_no_installed_module(ran):
    (ran.folder / "yaml.py").write_text("open('ran', 'w')")
    (ran.folder / "sklearn.py").write_text("open('ran', 'w')")
    ran.write_recipe("evaluate", data="digits", model="nin")
    assert ran.micronet("validate", "tiny.yaml").returncode == 0
    assert ran.micronet("run", "tiny.yaml", "--out", "new").returncode == 0
    assert not (ran.folder / "ran").exists()


def test_pythons_own_library_makes_no_model(ran):
    ran.write_recipe("evaluate", model={"name": "os:system", "command": "touch ran"})
    refused = ran.micronet("validate", "tiny.yaml")
    assert refused.returncode == 2
    assert "os is of Python's own library" in refused.stderr
    assert not (ran.folder / "ran").exists()
