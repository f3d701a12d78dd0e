"""Recipes are read strictly, and every refusal names the file and the line."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micronet.errors import MicronetError, RecipeError
from micronet.recipe import (
    Calibrate,
    Deploy,
    Evaluate,
    Freeze,
    Fuse,
    Named,
    Prune,
    Quantize,
    Recipe,
    Train,
)
from micronet.recipe import file as recipe_file
from micronet.recipe.file import dump, parse, read, structure
from micronet.recipe.resolution import resolve

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


def load(text):
    return structure(parse(text, "r.yaml", Path()))


def read_and_resolve(text):
    source = parse(text, "r.yaml", Path())
    return resolve(structure(source), source)


def refusal(text):
    with pytest.raises(RecipeError) as caught:
        read_and_resolve(text)
    return str(caught.value)


def with_steps(*steps):
    return "model: nin\ndata: digits\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "model: nin\ndata: digits\nstesp:\n  - train\n",
            "r.yaml:3: unknown key 'stesp'. Did you mean 'steps'? Allowed: model, data,",
            id="unknown key",
        ),
        pytest.param(
            "model: nin\ndata: digits\n1: 2\nsteps:\n  - train\n",
            "r.yaml:3: unknown key 1.",
            id="unknown key that is no text",
        ),
        pytest.param(
            with_steps("train", "trian: {epochs: 3}"),
            "r.yaml:5: unknown step 'trian'. Did you mean 'train'? Steps: train, prune,",
            id="unknown step",
        ),
        pytest.param(
            with_steps("train", "evalute"), "r.yaml:5: unknown step 'evalute'", id="bare step"
        ),
        pytest.param(
            with_steps("train: {1: 2}"), "r.yaml:4: train has no option 1.", id="option no text"
        ),
        pytest.param(
            with_steps("train:\n      epoch: 3"),
            "r.yaml:5: train has no option 'epoch'. Did you mean 'epochs'?",
            id="unknown option of a step",
        ),
        pytest.param(
            with_steps("freeze: {now: true}"),
            "r.yaml:4: freeze has no option 'now'. Allowed: none.",
            id="option of a step that has none",
        ),
        pytest.param(
            with_steps("train:\n      epochs: three"),
            "r.yaml:5: train: epochs must be an integer, got 'three'.",
            id="wrong type",
        ),
        pytest.param(
            with_steps("train:\n      lr: 1e-3\n      epochs: 0"),
            "r.yaml:6: train: epochs must be at least 1, got 0.",
            id="out of range",
        ),
        pytest.param(
            with_steps("train:\n      optimizer: adam"),
            "r.yaml:5: train: optimizer must be one of 'adamw', 'sgd', got 'adam'.",
            id="no such choice",
        ),
        pytest.param(
            with_steps("train:\n      lr: .nan"),
            "r.yaml:5: train: lr must be above 0, got nan",
            id="nan",
        ),
        pytest.param(
            with_steps("train: 3"),
            "r.yaml:4: the options of train must be a mapping, got 3.",
            id="options that are none",
        ),
        pytest.param(
            with_steps("quantize: iao"),
            "got 'iao'. Write quantize: {quantizer: iao}.",
            id="a technique alone",
        ),
        pytest.param(
            with_steps("prune: {percent: 0.5}"),
            "r.yaml:4: prune needs the option 'pruner', a technique's name.",
            id="technique missing",
        ),
        pytest.param(
            with_steps("prune:"), "r.yaml:4: prune needs the option 'pruner'", id="nothing below"
        ),
        pytest.param(
            with_steps("prune:\n      pruner: 3"),
            "r.yaml:5: pruner must be a name, got 3.",
            id="technique no name",
        ),
        pytest.param(
            with_steps("{train: {}, prune: {}}"), "r.yaml:4: a step is one of", id="two steps"
        ),
        pytest.param(with_steps("3"), "r.yaml:4: a step is one of", id="a number as a step"),
        pytest.param(
            "model: nin\ndata: digits\nsteps: []\n", "r.yaml:3: steps must be a list", id="no steps"
        ),
        pytest.param(
            "model: nin\ndata: digits\nsteps: train\n",
            "r.yaml:3: steps must be a list of train, prune",
            id="steps no list",
        ),
        pytest.param("data: digits\nsteps: [train]\n", "the key 'model' is missing", id="no model"),
        pytest.param("model: nin\nsteps: [train]\n", "the key 'data' is missing", id="no data"),
        pytest.param("model: nin\ndata: digits\n", "the key 'steps' is missing", id="steps gone"),
        pytest.param(
            "model: 3\ndata: digits\nsteps: [train]\n",
            "r.yaml:1: model must be a name, or a mapping with a name and options.",
            id="model a number",
        ),
        pytest.param(
            "model: nin\ndata: {root: x}\nsteps: [train]\n",
            "r.yaml:2: data must be a name",
            id="data without name",
        ),
        pytest.param(
            "seed: one\n" + GOOD, "r.yaml:1: seed must be an integer, got 'one'.", id="seed a text"
        ),
        pytest.param("seed: true\n" + GOOD, "r.yaml:1: seed must be", id="seed a flag"),
        pytest.param("seed: -1\n" + GOOD, "r.yaml:1: seed must be", id="seed below zero"),
        pytest.param(GOOD + "weights: 3\n", "r.yaml:9: weights must be a file", id="weights"),
        pytest.param(
            GOOD + "requires: attrs\n", "r.yaml:9: requires must be a list", id="requires a text"
        ),
        pytest.param("- train\n", "r.yaml:1: a recipe is a mapping", id="a list"),
        pytest.param("", "r.yaml: a recipe is a mapping with the keys", id="empty"),
        pytest.param("# only a comment\n", "r.yaml: a recipe is a mapping", id="only a comment"),
        pytest.param(
            GOOD + "seed: 1\nseed: 2\n",
            "r.yaml:10: the key 'seed' stands here twice.",
            id="key twice",
        ),
        pytest.param(
            with_steps("train:\n      lr: 1\n      lr: 2"),
            "r.yaml:6: the key 'lr' stands here twice.",
            id="option twice",
        ),
        pytest.param("model: nin\ndata: [\n", "r.yaml:3: ", id="YAML that ends too early"),
        pytest.param("model: nin\n\tdata: x\n", "r.yaml:2: ", id="a tab"),
        pytest.param("model: nin\ndata: *no\n", "r.yaml:2: ", id="an alias of nothing"),
        pytest.param("a: 1\n---\nb: 2\n", "r.yaml:2: ", id="two documents"),
        pytest.param("model: !!python/none x\n", "r.yaml:1: ", id="a tag of Python"),
        pytest.param("model: nin\0\n", "r.yaml", id="a control character"),
        pytest.param("model: nin\ndata: {{ data }}\n", "r.yaml:2: ", id="a template's braces"),
        pytest.param("model: nin\nweights: 2024-02-30\n", "r.yaml", id="a day that is not"),
        pytest.param("model: &m [*m]\n", "r.yaml", id="an alias of itself"),
        pytest.param("[" * 3000, "r.yaml", id="too deep"),
    ],
)
def test_a_refusal_names_file_and_line(text, message):
    told = refusal(text)
    assert told.startswith("r.yaml")
    assert message in told


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            "quantize:\n      quantizer: iao\n      w_bit: 4",
            "r.yaml:6: quantizer 'iao' has no option 'w_bit'. Did you mean 'w_bits'?",
        ),
        (
            "quantize:\n      quantizer: iao\n      w_bits: 99",
            "r.yaml:6: quantizer 'iao': w_bits must be between 2 and 16, got 99.",
        ),
        (
            "quantize:\n      w_bits: 4\n      quantizer: ioa",
            "r.yaml:6: There is no quantizer 'ioa'. Did you mean 'iao'?",
        ),
        (
            "prune:\n      pruner: normal\n      percent: '0.5'",
            "r.yaml:6: pruner 'normal': percent must be a number, got '0.5'.",
        ),
        (
            "quantize:\n      quantizer: iao\n      name: mine",
            "r.yaml:6: quantizer 'iao' has no option 'name'.",
        ),
        (
            "quantize:\n      quantizer: iao\n      true: true",
            "r.yaml:6: quantizer 'iao' has no option True.",
        ),
        (
            "quantize:\n      quantizer: iao\n      options: {}",
            "r.yaml:6: quantizer 'iao' has no option 'options'.",
        ),
        ("deploy: {backend: onnxruntim}", "r.yaml:4: There is no deploy_backend 'onnxruntim'."),
        (
            "deploy:\n      min_parity: 2",
            "r.yaml:5: deploy: min_parity must be between 0 and 1, got 2.",
        ),
    ],
)
def test_a_refusal_of_a_techniques_option_names_file_and_line(step, message):
    assert refusal(with_steps(step)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  name: nin\n  classes: 3\n", "r.yaml:3: model 'nin' has no option 'classes'."),
        (
            "model:\n  name: nin\n  num_classes: 0\n",
            "r.yaml:3: model 'nin': num_classes must be at least 1",
        ),
        ("model:\n  name: nin\n  kind: 3\n", "r.yaml:3: model 'nin' has no option 'kind'."),
        ("model: nim\n", "r.yaml:1: There is no model 'nim'. Did you mean 'nin'?"),
    ],
)
def test_a_refusal_of_a_models_option_names_file_and_line(text, message):
    assert refusal(text + "data: digits\nsteps: [train]\n").startswith(message)


def test_a_missing_file_is_told(file):
    with pytest.raises(RecipeError, match=r"^absent\.yaml can't be read: No such file"):
        read("absent.yaml")


def test_a_folder_is_no_recipe(tmp_path):
    folder = tmp_path / "d.yaml"
    folder.mkdir()
    with pytest.raises(RecipeError, match="can't be read"):
        read(str(folder))


def test_a_file_that_is_no_text_is_no_recipe(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RecipeError, match="can't be read: it is not UTF-8 text"):
        read(str(tmp_path / "r.yaml"))


def test_an_unknown_recipe_is_answered_with_the_nearest_shipped_one():
    with pytest.raises(RecipeError) as caught:
        read("quickstrat")
    assert "no recipe 'quickstrat'" in str(caught.value)
    assert "Did you mean 'quickstart'?" in str(caught.value)


def test_a_text_far_too_long_for_a_name_is_an_unknown_recipe():
    with pytest.raises(RecipeError):
        read(GOOD * 20)


def test_a_recipe_is_read_from_a_file_without_the_usual_ending(file, tmp_path):
    file(GOOD)
    shutil.copy("r.yaml", "recipe")
    assert read("recipe")[0] == read("r.yaml")[0]


def test_a_recipe_saved_with_a_byte_order_mark_is_read(file):
    assert read(file("\ufeff" + GOOD))[0] == load(GOOD)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", ".1e-3", "1.e-4", "+1e-4", "10e-5"])
def test_a_number_with_an_exponent_is_a_number(text):
    (step,) = load(with_steps(f"train: {{lr: {text}}}")).steps
    assert step.lr == pytest.approx(1e-4)


@pytest.mark.parametrize("name", sorted(recipe_file.shipped()))
def test_every_shipped_recipe_is_read_and_resolved_and_says_what_it_does(name):
    recipe, source = read(name)
    resolve(recipe, source)
    assert len(recipe_file.shipped()[name]) > 20


def test_every_step_is_read_with_its_defaults():
    recipe = load(
        with_steps(
            "train",
            "prune: {pruner: normal}",
            "quantize: {quantizer: iao}",
            "calibrate:",
            "freeze: {}",
            "fuse",
            "evaluate",
            "deploy",
        )
    )
    assert recipe == Recipe(
        model="nin",
        data="digits",
        steps=[
            Train(),
            Prune("normal"),
            Quantize("iao"),
            Calibrate(),
            Freeze(),
            Fuse("bn"),
            Evaluate(),
            Deploy("onnxruntime"),
        ],
    )


def test_a_recipe_in_python_equals_the_same_in_yaml():
    assert load(
        "model: {name: nin, num_classes: 3}\ndata: digits\nseed: 7\nweights: w.pth\n"
        "requires: ['attrs>=20']\nsteps:\n"
        "  - train: {epochs: 3, lr: 1e-4, sparsity: 1e-3}\n"
        "  - prune: {pruner: normal, percent: 0.4}\n"
        "  - quantize: {quantizer: iao, w_bits: 4}\n"
        "  - train: {optimizer: sgd}\n"
        "  - deploy: {backend: onnxruntime, threads: 2}\n"
    ) == Recipe(
        model=Named("nin", {"num_classes": 3}),
        data="digits",
        seed=7,
        weights="w.pth",
        requires=["attrs>=20"],
        steps=(
            Train(epochs=3, lr=1e-4, sparsity=1e-3),
            Prune("normal", {"percent": 0.4}),
            Quantize("iao", {"w_bits": 4}),
            Train(optimizer="sgd"),
            Deploy("onnxruntime", threads=2),
        ),
    )


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=1e-12, max_value=1e12)
OPTIONS = st.dictionaries(
    st.sampled_from(["bits", "scale", "mode"]),
    st.one_of(st.integers(), st.booleans(), TEXTS, NUMBERS, st.none(), st.lists(st.integers())),
)
STEPS = st.one_of(
    st.builds(
        Train,
        epochs=st.integers(1, 99),
        lr=NUMBERS,
        optimizer=st.sampled_from(["adamw", "sgd"]),
        sparsity=st.none() | NUMBERS,
    ),
    st.builds(Prune, st.just("normal"), OPTIONS),
    st.builds(Quantize, st.just("iao"), OPTIONS),
    st.builds(Calibrate, batches=st.integers(1, 9)),
    st.just(Freeze()),
    st.builds(Fuse, st.just("bn"), OPTIONS),
    st.just(Evaluate()),
    st.builds(
        Deploy,
        st.just("onnxruntime"),
        OPTIONS,
        min_parity=st.floats(0, 1),
        dynamic=st.sampled_from([("batch",), ("height", "width"), ()]),
        threads=st.none() | st.integers(1, 8),
    ),
)
RECIPES = st.builds(
    Recipe,
    model=st.builds(Named, TEXTS.filter(bool), OPTIONS),
    data=TEXTS.filter(bool),
    steps=st.lists(STEPS, min_size=1, max_size=4),
    weights=st.none() | TEXTS,
    seed=st.integers(0, 2**31),
    requires=st.lists(TEXTS, max_size=2),
)


@settings(deadline=None, max_examples=50)
@given(RECIPES)
def test_a_dumped_recipe_loads_back_equal(recipe):
    assert load(dump(recipe)) == recipe


@pytest.mark.parametrize("text", ["1e-4", "1e5", "true", "null", "3", "~", "2024-01-01", "a: b"])
def test_a_text_that_looks_like_something_else_stays_a_text(text):
    recipe = Recipe(model=Named("nin", {"mode": text}), data="digits", steps=[Train()])
    assert load(dump(recipe)).model.options == {"mode": text}


def test_a_tuple_among_the_options_loads_back_equal():
    recipe = Recipe(model=Named("nin", {"cfg": (1, 2)}), data="digits", steps=[Train()])
    assert load(dump(recipe)) == recipe


def test_a_resolved_recipe_is_written_out_once_and_for_all():
    once = resolve(load(GOOD)).recipe
    again = resolve(load(dump(once))).recipe
    assert again == once
    assert dump(again) == dump(once)
    assert once.steps[1].options["a_bits"] == 8


@given(st.text(max_size=60))
def test_any_text_that_is_no_recipe_is_refused_in_words(text):
    with pytest.raises(MicronetError, match=r"^r\.yaml"):
        load(text)
