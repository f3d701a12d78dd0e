"""All that is wrong with a recipe is told at once, each fault once."""

import sys

import pytest

from micronet.errors import RecipeError
from micronet.recipe import Deploy, Quantize, Recipe, Train
from micronet.recipe.file import read
from micronet.recipe.resolution import resolve, resolve_file


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """The faults of a recipe in the current folder, which the user's modules may lie in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def tell(text, *changes):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError) as caught:
            resolve_file("r.yaml", changes)
        return str(caught.value).splitlines()

    return tell


def with_steps(*steps):
    return "model: nin\ndata: digits\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)


def test_every_fault_is_told_in_the_order_of_the_file(faults):
    told = faults("""\
modle: 3
model: {name: nin, num_classes: 0, with: 3}
data: digitts
seed: -1
weights: absent.pth
requires: ['attrs==', 'attrs>=999']
steps:
  - train: {epochs: 0, lr: high, epoch: 3}
  - calibrate
  - quantize: {quantizer: ioa}
  - trian
  - prune
  - deploy: {threads: 0, precision: int3}
""")
    assert [line.partition(",")[0] for line in told] == [
        "r.yaml:1: unknown key 'modle'. Did you mean 'model'? Allowed: model",
        "r.yaml:2: model 'nin' has no option 'with'. Allowed: num_classes",
        "r.yaml:2: model 'nin': num_classes must be at least 1",
        "r.yaml:3: There is no dataset 'digitts'. Did you mean 'digits'? Installed: digits",
        "r.yaml:4: seed must be at least 0",
        "r.yaml:5: there is no file 'absent.pth'.",
        "r.yaml:6: 'attrs==' is no requirement such as 'name>=1.0'.",
        "r.yaml:6: needs attrs>=999",
        "r.yaml:8: train has no option 'epoch'. Did you mean 'epochs'? Allowed: epochs",
        "r.yaml:8: train: epochs must be at least 1",
        "r.yaml:8: train: lr must be a number",
        "r.yaml:9: calibrate needs a quantize or a prune step before it.",
        "r.yaml:10: There is no quantizer 'ioa'. Did you mean 'iao'? Installed: dorefa",
        "r.yaml:11: unknown step 'trian'. Did you mean 'train'? Steps: train",
        "r.yaml:12: prune needs the option 'pruner'",
        "r.yaml:13: deploy: threads must be at least 1",
        "r.yaml:13: deploy_backend 'onnxruntime': precision must be one of 'model'",
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("modle: nin\ndata: digits\nsteps: [train]\n", id="a misspelt key is missing"),
        pytest.param(
            "model: absent_one:net\ndata: absent_one:images\nsteps: [train]\n", id="a module twice"
        ),
        pytest.param(
            "model: nin\ndata: digits\nrequires: [micronet-absent]\n"
            "steps: [{quantize: {quantizer: absent}}, train]\n",
            id="what a missing distribution brings",
        ),
        pytest.param(with_steps("train: {sparsity: 1}", "prnue"), id="pruning that is misspelt"),
        pytest.param(
            with_steps("train: {sparsity: 1}", "prune: {}"), id="pruning without a pruner"
        ),
        pytest.param(
            with_steps("quantize: {quantizer: absent}", "evaluate", "deploy"),
            id="a quantizer that may need no data",
        ),
        pytest.param(
            with_steps("quantize: {quantizer: absent}", "calibrate"),
            id="a quantizer that may need data",
        ),
        pytest.param(
            with_steps("quantize: {quantizer: iao}", "evaluate", "freeze", "deploy"),
            id="data that several steps wait for",
        ),
        pytest.param(with_steps("qantize", "calibrate", "deploy"), id="after an unknown step"),
        pytest.param(with_steps("train: {epochs: 0}", "deploy"), id="a step with a faulty option"),
        pytest.param("model: nin\ndata: digits\nsteps: {}\n", id="no steps"),
    ],
)
def test_what_follows_from_one_fault_is_not_told(faults, text):
    assert len(faults(text)) == 1


def test_steps_in_a_wrong_order_are_told_beside_what_else_is_wrong_with_them(faults):
    steps = "quantize: {quantizer: iao, w_bits: 99}", "train", "prune: {pruner: normal, percent: 9}"
    assert [line.partition(" must")[0] for line in faults(with_steps(*steps))] == [
        "r.yaml:4: quantizer 'iao': w_bits",
        "r.yaml:6: pruner 'normal': percent",
        "r.yaml:6: prune",
    ]


def test_two_names_that_a_module_lacks_are_both_told(faults, tmp_path):
    (tmp_path / "nearly_empty.py").write_text("")
    told = faults("model: nearly_empty:net\ndata: nearly_empty:images\nsteps: [train]\n")
    assert [line.partition(".")[2] for line in told] == [
        "yaml:1: nearly_empty has no callable 'net'.",
        "yaml:2: nearly_empty has no callable 'images'.",
    ]


def test_a_change_is_named_beside_each_fault(faults):
    told = faults(with_steps("train: {epochs: 0}"), "seed=-1")
    assert [line.endswith("(with --set seed=-1)") for line in told] == [True, True]


def test_reading_alone_tells_every_fault_of_the_structure(tmp_path):
    (tmp_path / "r.yaml").write_text(with_steps("train: {epochs: 0, lr: 0}", "trian"))
    with pytest.raises(RecipeError) as caught:
        read(str(tmp_path / "r.yaml"))
    assert len(str(caught.value).splitlines()) == 3


def test_every_fault_of_a_recipe_in_python_is_told():
    with pytest.raises(RecipeError) as caught:
        resolve(Recipe(model="nim", data="digits", steps=[Quantize("ioa"), Train(), Deploy("ort")]))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "steps.0.quantize.quantizer",
        "steps.2.deploy.backend",
        "model",
    ]


@pytest.mark.parametrize(
    "label", ["data: digits", "data: {name: image_folder, root: photos, size: 32}"]
)
def test_a_registered_model_with_too_few_classes_is_refused_unloaded(faults, tmp_path, label):
    for split in ("train", "test"):
        for number in range(10):
            (tmp_path / "photos" / split / str(number)).mkdir(parents=True)
    told = faults(f"model: {{name: nin, num_classes: 9}}\n{label}\nsteps: [train]\n")
    assert told == ["r.yaml:2: A label is 9, and the model has 9 classes: 0 to 8."]
