"""--set replaces one value of a recipe, and every refusal says why."""

from pathlib import Path

import pytest

from micronet.errors import RecipeError
from micronet.recipe import (
    Named,
    Train,
)
from micronet.recipe.file import read

GOOD = """\
model: nin
data: digits
steps:
  - train: {epochs: 3, lr: 1e-4}
  - quantize:
      quantizer: iao
      w_bits: 4
  - train
"""


def changed(file, *changes):
    return read(file(GOOD), changes)[0]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("seed=3", lambda recipe: recipe.seed == 3),
        ("steps.0.train.epochs=7", lambda recipe: recipe.steps[0].epochs == 7),
        ("steps.0.train.lr=1e-2", lambda recipe: recipe.steps[0].lr == 0.01),
        ("steps.0.train.lr=2", lambda recipe: recipe.steps[0].lr == 2),
        ("steps.0.train.sparsity=null", lambda recipe: recipe.steps[0].sparsity is None),
        ("steps.0.train.workers=2", lambda recipe: recipe.steps[0].workers == 2),
        ("steps.0={train: {epochs: 9}}", lambda recipe: recipe.steps[0] == Train(epochs=9)),
        ("steps=[train]", lambda recipe: recipe.steps == (Train(),)),
        (
            "model={name: nin, num_classes: 3}",
            lambda r: r.model == Named("nin", {"num_classes": 3}),
        ),
        ("model=my.module:net", lambda recipe: recipe.model == Named("my.module:net")),
        (
            "steps.1.quantize.per_channel=false",
            lambda recipe: recipe.steps[1].options == {"w_bits": 4, "per_channel": False},
        ),
        ("weights='a=b.pth'", lambda recipe: recipe.weights == "a=b.pth"),
        ("requires=[attrs]", lambda recipe: recipe.requires == ("attrs",)),
    ],
)
def test_set_replaces_one_value_as_yaml_reads_it(file, change, found):
    assert found(changed(file, change))


def test_set_leaves_the_rest_and_the_file_alone(file):
    recipe = changed(file, "steps.0.train.epochs=7")
    assert recipe.steps[1:] == read("r.yaml")[0].steps[1:]
    assert recipe.steps[0].lr == 1e-4
    assert Path("r.yaml").read_text() == GOOD


def test_later_sets_win_and_see_the_earlier(file):
    assert changed(file, "seed=1", "seed=2").seed == 2
    recipe = changed(file, "steps.2={train: {}}", "steps.2.train.epochs=5")
    assert recipe.steps[2] == Train(epochs=5)


@pytest.mark.parametrize("step", ["train:", "train"])
def test_set_reaches_into_a_step_with_nothing_below_it(file, step):
    recipe, _ = read(
        file(f"model: nin\ndata: digits\nsteps:\n  - {step}\n"), ["steps.0.train.epochs=4"]
    )
    assert recipe.steps == (Train(epochs=4),)


def test_set_changes_a_shipped_recipe():
    assert read("quickstart", ["steps.0.train.epochs=1"])[0].steps[0].epochs == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed", "--set seed: write it as path=value"),
        ("steps.9.train.epochs=3", "steps.9 does not exist; steps has 3 entries, counted from 0."),
        ("steps.3={train: {}}", "steps.3 does not exist; steps has 3 entries"),
        ("steps.-1.train.epochs=3", "steps.-1 does not exist"),
        ("steps.first.train.epochs=3", "steps.first does not exist"),
        ("steps.²={train: {}}", "steps.² does not exist"),
        ("step.0.train.epochs=3", "step does not exist. Did you mean 'steps'?"),
        ("steps.0.trian.epochs=3", "steps.0.trian does not exist. Did you mean 'train'?"),
        ("model.name.x=3", "model is no mapping or list"),
        ("sed=3", "unknown key 'sed'. Did you mean 'seed'?"),
        ("steps.0.train.epoch=3", "train has no option 'epoch'. Did you mean 'epochs'?"),
        ("steps.0.train.epochs=many", "epochs must be an integer, got 'many'."),
        ("steps.0.train.epochs=", "epochs must be an integer, got None."),
        ("steps.0.train.epochs='3'", "epochs must be an integer, got '3'."),
        ("steps.0.train.epochs=0", "epochs must be at least 1, got 0."),
        ("steps.0.train.epochs=[", "--set steps.0.train.epochs=["),
        ("seed=\a", "--set seed="),
        ("=3", "unknown key ''"),
    ],
)
def test_a_set_that_fits_nowhere_is_refused_with_the_reason(file, change, message):
    with pytest.raises(RecipeError) as caught:
        changed(file, change)
    assert message in str(caught.value)


def test_a_refusal_after_a_set_still_names_file_and_change(file):
    with pytest.raises(RecipeError) as caught:
        changed(file, "steps.0.train.epochs=0")
    assert "r.yaml" in str(caught.value)
    assert "--set steps.0.train.epochs=0" in str(caught.value)
