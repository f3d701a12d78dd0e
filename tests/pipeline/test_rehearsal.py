"""What a step of a recipe would fail at is found by `micronet validate`, on the real model."""

import re

import pytest
import torch
from torch import nn

from micronet import registry
from micronet.errors import DataError
from micronet.pipeline.context import start_model
from micronet.pipeline.rehearsal import rehearse
from micronet.recipe import (
    Calibrate,
    Deploy,
    Evaluate,
    Freeze,
    Fuse,
    Prune,
    Quantize,
    Recipe,
    Train,
)
from micronet.recipe.resolution import Resolved
from micronet.training.accelerator import make_accelerator


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )


class Squeezing(Net):
    def forward(self, x):
        return super().forward(x).squeeze()


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))


class Infinite(Net):
    def forward(self, x):
        return super().forward(x) * torch.inf


class Inplace(Net):
    """Fails in training alone: the gradient needs what is overwritten."""

    def forward(self, x):
        x = self[0](x).sigmoid()
        if self.training:
            x.mul_(2)
        return self[8](x.mean((2, 3)))


def frozen():
    return Net().requires_grad_(requires_grad=False)


def rehearsed(model, *steps):
    recipe = Recipe(model="own:model", data="own:data", steps=steps)
    kinds = {Prune: "pruner", Quantize: "quantizer", Fuse: "fuser", Deploy: "deploy_backend"}
    techniques = tuple(
        registry.create(kind, getattr(step, kind.removeprefix("deploy_")), **step.options)
        if (kind := kinds.get(type(step)))
        else None
        for step in steps
    )
    task = registry.create("task", "classification")
    resolved = Resolved(recipe, lambda: model, lambda: None, task, techniques, None)
    torch.manual_seed(0)
    samples = [(torch.rand(3, 8, 8), label) for label in (0, 1)]
    return rehearse(resolved, task, model, samples, make_accelerator(cpu=True, quiet=True))


def test_what_a_run_can_do_is_no_fault():
    steps = [
        *(Train(sparsity=1e-4), Prune("normal"), Evaluate(), Train(batch_size=1, lr=1e6)),
        *(Quantize("iao"), Calibrate(), Train(), Freeze(), Train(), Fuse(), Deploy()),
    ]
    assert rehearsed(Net(), *steps) is None


FAULTS = {
    "frozen": (frozen, [Train()], "train", "has no parameter that requires a gradient"),
    "a batch norm of one": (
        Normed,
        [Evaluate(), Train(batch_size=1)],
        "train",
        "Expected more than 1 value per channel when training",
    ),
    "not finite": (Infinite, [Train()], "train", "The loss became nan in epoch 1."),
    "no gradient": (Inplace, [Train()], "train", "modified by an inplace operation"),
    "keep of no layer": (
        Net,
        [Train(), Prune("normal", {"keep": ["bckbone.*"]})],
        "prune",
        "keep names no layer of the model that has channels: 'bckbone.*'.",
    ),
    "nothing to prune": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)),
        [Train(), Prune("normal")],
        "prune",
        "No layer can be pruned",
    ),
    "an engine's integers": (
        Net,
        [Train(), Deploy("onnxruntime", {"precision": "int8"})],
        "deploy",
        "int8",
    ),
}


@pytest.mark.parametrize(("make", "steps", "step", "sentence"), FAULTS.values(), ids=FAULTS)
def test_the_first_step_that_fails_is_named(make, steps, step, sentence):
    key, told = rehearsed(make(), *steps)
    assert key == ("steps", len(steps) - 1, step)
    assert told.startswith(f"{step} will fail: ")
    assert sentence in told


def test_a_model_that_drops_a_batch_of_one_is_refused():
    key, told = rehearsed(Squeezing(), Evaluate())
    assert key == ("model",)
    assert told.startswith("the model gives [2, 4] for two images, and [4] for one, ")


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"steps": 3}

    def set_extra_state(self, state):
        """Takes nothing."""


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.LazyLinear(4), "model own:model has lazy layers, as 'weight' has no shape yet;"),
        (Extra(3, 4), "model own:model keeps '_extra_state' in its state_dict, a dict;"),
    ],
    ids=["lazy", "extra state"],
)
def test_a_model_that_no_file_can_hold_is_refused_at_once(layer, sentence):
    recipe = Recipe(model="own:model", data="own:data", steps=[Train()])
    with pytest.raises(DataError, match=re.escape(sentence)):
        start_model(Resolved(recipe, lambda: layer, lambda: None, None, (None,), None))


def test_validate_tells_it_at_the_steps_line(project):
    project.write_recipe("train", {"prune": {"pruner": "normal", "keep": ["heda"]}})
    done = project.micronet("validate", "tiny.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "tiny.yaml:5: prune will fail: keep names no layer of the model that has channels: 'heda'."
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_int8_of_a_float_model_is_refused_without_looking_at_it(micronet_cli, tmp_path):
    (tmp_path / "r.yaml").write_text(
        "model: nin\ndata: digits\nsteps:\n- train\n"
        "- deploy: {backend: openvino, precision: int8}\n"
    )
    done = micronet_cli("validate", str(tmp_path / "r.yaml"))
    assert done.returncode == 2
    assert "r.yaml:5: precision int8 needs a quantize step before deploy" in done.stderr
