"""What `micronet new-plugin` writes installs, is listed, works in a recipe and passes its tests."""

import json

import pytest

from micronet.techniques import KINDS

RECIPE = """
model: {name: new_model, num_classes: 4, width: 8}
data: {name: new_dataset, count: 256}
"""
TRAINED = f"""{RECIPE}
steps:
  - train: {{epochs: 4, lr: 0.01}}
  - prune: {{pruner: new_pruner, percent: 0.3}}
  - train: {{epochs: 2, lr: 0.01}}
  - quantize: {{quantizer: new_quantizer, bits: 6}}
  - train: {{epochs: 1}}
  - fuse: {{fuser: new_fuser}}
  - deploy: {{backend: new_deploy_backend}}
"""
OBSERVED = f"""{RECIPE}
weights: runs/trained/steps/01-train.safetensors
steps:
  - quantize: {{quantizer: iao, a_observer: new_observer}}
  - calibrate: {{batches: 2}}
  - evaluate
"""


@pytest.fixture(scope="module")
def environment(make_environment):
    made = make_environment("written")
    for kind in KINDS:
        done = made.micronet("new-plugin", kind, f"new_{kind}")
        assert done.returncode == 0, done.stderr
    made.install(*made.work.glob("micronet-new-*"))
    return made


def test_they_are_listed_without_a_complaint(environment):
    found = {
        entry["name"]: (entry["kind"], entry["status"], entry["error"])
        for entry in environment.entries()
        if entry["distribution"].startswith("micronet-new-")
    }
    assert found == {f"new_{kind}": (kind, "ok", None) for kind in KINDS}


def test_they_work_in_a_recipe(environment):
    for name, recipe in {"trained": TRAINED, "observed": OBSERVED}.items():
        (environment.work / f"{name}.yaml").write_text(recipe, "utf-8")
        done = environment.micronet("run", f"{name}.yaml", "--cpu", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"][-1]["accuracy"] > 0.9


def test_their_own_tests_pass(environment):
    folders = [str(folder) for folder in environment.work.glob("micronet-new-*")]
    flags = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
    done = environment.run(["-m", "pytest", *flags, *folders])
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout


def test_an_unknown_kind_is_answered_with_the_right_one(micronet_cli):
    done = micronet_cli("new-plugin", "quantiser", "mine")
    assert done.returncode == 2
    assert "Did you mean 'quantizer'?" in done.stderr


@pytest.mark.parametrize("name", ["My-Technique", "2fast", "a__b", "../up", ""])
def test_a_name_that_is_no_name_is_refused(micronet_cli, tmp_path, name):
    done = micronet_cli("new-plugin", "quantizer", name)
    assert done.returncode == 2
    assert "as in decaying_peak" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(micronet_cli, tmp_path):
    (tmp_path / "micronet-mine").mkdir()
    (tmp_path / "micronet-mine" / "thesis.txt").write_text("years of work")
    done = micronet_cli("new-plugin", "quantizer", "mine")
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert [file.name for file in (tmp_path / "micronet-mine").iterdir()] == ["thesis.txt"]
