"""The recipe schema takes what micronet takes and refuses what it refuses."""

import json
from importlib import resources
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from micronet.errors import RecipeError
from micronet.recipe import to_plain
from micronet.recipe.file import parse, read, shipped, structure
from micronet.recipe.resolution import resolve
from micronet.recipe.schema import recipe_schema

SHIPPED = sorted(shipped())


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(json.dumps(recipe_schema()))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def content_of(name):
    text = (resources.files("micronet.recipe") / "shipped" / f"{name}.yaml").read_text("utf-8")
    return parse(text, name, Path()).content


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_passes(validator, name):
    validator.validate(content_of(name))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_with_every_option_written_out_passes(validator, name):
    recipe, source = read(name)
    validator.validate(json.loads(json.dumps(to_plain(resolve(recipe, source).recipe))))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_typo_in_any_key_of_a_shipped_recipe_fails(validator, name):
    for typo in typos(content_of(name)):
        assert not validator.is_valid(typo), typo


def typos(content):
    """The same content with one key, at any depth, written wrongly."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield {k + "x" if k == key else k: v for k, v in content.items()}
            yield from ({**content, key: wrong} for wrong in typos(value))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            for wrong in typos(value):
                yield [*content[:index], wrong, *content[index + 1 :]]


def in_recipe(*steps):
    return "model: nin\ndata: digits\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)


GOOD = [
    in_recipe("train"),
    in_recipe("train:"),
    in_recipe("train: {epochs: 3, lr: 1, optimizer: sgd, sparsity: null}") + "seed: 3\n",
    in_recipe("fuse", "deploy", "evaluate"),
    in_recipe("fuse: {}", "deploy: {threads: null}"),
    in_recipe("quantize: {quantizer: iao, w_bits: 4}", "calibrate: {batches: 1}"),
    in_recipe("quantize: {quantizer: 'micronet:iao', w_bits: 4}", "train:"),
    in_recipe("prune: {pruner: normal, percent: 0.95}"),
    in_recipe("deploy: {backend: onnxruntime, min_parity: 1}"),
    in_recipe("deploy: {dynamic: [height, width]}"),
    "model: {name: nin, cfg: [8, 8, 8, 8, 8, 8, 8, 8]}\ndata: digits\nsteps: [train]\n",
    "model: nin\ndata: {name: image_folder, root: x}\nsteps: [train]\n",
    "model: {name: 'micronet:nin', num_classes: 3}\ndata: digits\nsteps: [train]\n",
    in_recipe("train") + "requires: ['attrs>=20']\nweights: null\n",
    in_recipe("train") + "requires:\n",
]
BAD = [
    in_recipe("trian"),
    in_recipe("freeze: {now: true}"),
    in_recipe("train: {epochs: '3'}"),
    in_recipe("train: {epochs: true}"),
    in_recipe("train: {epochs: 0}"),
    in_recipe("train: {lr: 0}"),
    in_recipe("train: {sparsity: 0}"),
    in_recipe("train: {optimizer: adam}"),
    in_recipe("train: [3]"),
    in_recipe("prune"),
    in_recipe("prune: {}"),
    in_recipe("prune:"),
    in_recipe("prune: {pruner: absent}"),
    in_recipe("prune: {pruner: normal, percent: 0.96}"),
    in_recipe("prune: {pruner: normal, w_bits: 4}"),
    in_recipe("quantize: {quantizer: iao, per_channel: 1}", "train:"),
    in_recipe("quantize: {w_bits: 4}", "train:"),
    in_recipe("deploy: {min_parity: 2}"),
    in_recipe("deploy: {dynamic: [depth]}"),
    in_recipe("deploy: {dynamic: height}"),
    in_recipe("{train: {}, evaluate: {}}"),
    "model: nin\ndata: digits\nsteps: []\n",
    in_recipe("train") + "seed: 1.5\n",
    in_recipe("train") + "requires: attrs\n",
    in_recipe("train") + "weights: 3\n",
    in_recipe("train") + "stpes: 3\n",
    "model: nin\ndata: digits\n",
    "model: {num_classes: 3}\ndata: digits\nsteps: [train]\n",
    "model: {name: nin, classes: 3}\ndata: digits\nsteps: [train]\n",
    "model: {name: nin, cfg: [a]}\ndata: digits\nsteps: [train]\n",
    "model: nin\ndata: image_folder\nsteps: [train]\n",
    "model: nin\ndata: {name: image_folder}\nsteps: [train]\n",
    "model: nim\ndata: digits\nsteps: [train]\n",
    "[train]",
]


def ours(text):
    source = parse(text, "r.yaml", Path())
    return resolve(structure(source), source)


@pytest.mark.parametrize("text", GOOD)
def test_what_micronet_takes_passes(validator, text, tmp_path, monkeypatch):
    for split in ("train", "test"):
        (tmp_path / "x" / split).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    ours(text)
    assert validator.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("text", BAD)
def test_what_micronet_refuses_fails(validator, text):
    with pytest.raises(RecipeError):
        ours(text)
    assert not validator.is_valid(yaml.safe_load(text))


def test_the_schema_tells_editors_what_an_option_means(validator):
    steps = validator.schema["properties"]["steps"]["items"]["anyOf"]
    (train,) = [step for step in steps if "train" in step.get("properties", {})]
    assert train["properties"]["train"]["properties"]["epochs"] == {
        "type": "integer",
        "description": "Passes over the training set.",
        "default": 1,
        "minimum": 1,
    }
