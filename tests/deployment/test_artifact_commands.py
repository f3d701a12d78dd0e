"""`micronet show ARTIFACT`, `bench` and `eval` on a model of several inputs and outputs."""

import json

import pytest
import torch
from torch import nn

from micronet import registry
from micronet.deployment.bench import bench
from micronet.deployment.engine import load_engine
from micronet.errors import DeployError
from micronet.pipeline.engines import evaluate_artifact
from micronet.recipe import Named


class Matcher(nn.Module):
    """Images, and the rows of a table that are asked for."""

    def __init__(self):
        super().__init__()
        self.table, self.stem = nn.Embedding(4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, images, query):
        return {"map": self.stem(images), "rows": self.table(query["place"])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matcher")
    example = (torch.randn(2, 3, 8, 8), {"place": torch.tensor([[1], [3]])})
    registry.create("deploy_backend", "onnxruntime").export(Matcher().eval(), example, str(folder))
    return folder


def test_show_prints_what_a_model_takes_and_gives(micronet_cli, folder):
    done = micronet_cli("show", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{folder}: onnxruntime 1.")
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "input images float32 [batch, 3, 8, 8]" in rows
    assert "input query.place int64 [batch_1, 1]" in rows
    assert "output map float32 [batch, 4, 6, 6]" in rows


def test_show_as_json_is_the_card(micronet_cli, folder):
    shown = json.loads(micronet_cli("show", str(folder), "--json").stdout)
    card = json.loads((folder / "artifact.json").read_text())
    assert shown == {key: card[key] for key in card if key != "sha256"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: give the name of a technique too"),
        (["."], "holds no readable artifact"),
    ],
)
def test_show_of_what_is_no_artifact_says_what_to_write(micronet_cli, arguments, sentence):
    done = micronet_cli("show", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in " ".join(done.stderr.replace("│", "").split())


def test_bench_times_a_model_of_several_inputs_on_noise(folder):
    timed = bench(str(folder), threads=1, batch=3)
    assert timed.batch == 3
    assert timed.inputs == (
        "images: float32 [batch, 3, 8, 8]",
        "query.place: int64 [batch_1, 1]",
    )
    assert timed.outputs[0] == "map: float32 [batch, 4, 6, 6]"
    assert timed.latency.images_per_second > 0


def test_an_engine_is_loaded_by_its_folder(folder):
    assert load_engine(str(folder)).signature == load_engine(folder).signature


def test_figures_of_models_with_several_inputs_are_refused_in_words(folder):
    with pytest.raises(DeployError, match=r"takes images, query.place; figures"):
        evaluate_artifact(str(folder), Named("digits"))
