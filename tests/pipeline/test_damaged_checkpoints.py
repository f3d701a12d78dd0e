"""A training's checkpoint that no training left is refused before anything is loaded."""

import copy

import attrs
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from micronet import registry
from micronet.errors import RunError
from micronet.training.accelerator import make_accelerator
from micronet.training.loop import TrainingOptions, train

PLAIN = TrainingOptions(
    epochs=3,
    lr=0.1,
    batch_size=4,
    optimizer="adamw",
    weight_decay=0.0,
    schedule="one_cycle",
    workers=0,
)
RICH = attrs.evolve(PLAIN, average=0.9, keep="best", precision="float16")
DATA = TensorDataset(torch.randn(8, 4), torch.tensor([0, 1] * 4))


def go(options, **more):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    states = []
    train(
        model,
        DATA,
        options,
        task=registry.create("task", "classification", classes=2),
        accelerator=make_accelerator(cpu=True),
        seed=0,
        watched=DATA,
        on_epoch=lambda state: states.append(copy.deepcopy(state)),
        **more,
    )
    return model.state_dict(), states


@pytest.mark.parametrize(
    "options", [PLAIN, attrs.evolve(PLAIN, optimizer="sgd"), RICH], ids=["adamw", "sgd", "rich"]
)
def test_a_state_that_a_training_left_is_gone_on_from(options):
    whole, states = go(options)
    resumed, _ = go(options, resume=states[0])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def moments(state):
    return state.optimizer["state"][0]


DAMAGE = {
    "an epoch of another training": lambda s: setattr(s, "epoch", 10**9),
    "no epoch": lambda s: setattr(s, "epoch", 0),
    "an epoch in words": lambda s: setattr(s, "epoch", "1"),
    "a truth value for an epoch": lambda s: setattr(s, "epoch", True),
    "no optimizer": lambda s: setattr(s, "optimizer", None),
    "no groups": lambda s: s.optimizer.update(param_groups=[]),
    "a group of other parameters": lambda s: s.optimizer["param_groups"][0].update(params=[0]),
    "an infinite rate": lambda s: s.optimizer["param_groups"][0].update(lr=float("inf")),
    "moments of another size": lambda s: moments(s).update(exp_avg=torch.zeros(1)),
    "moments of integers": lambda s: moments(s).update(exp_avg=torch.zeros(3, 4, dtype=torch.int8)),
    "moments that are none": lambda s: moments(s).update(exp_avg=None),
    "no moments": lambda s: moments(s).pop("exp_avg_sq"),
    "moments of nobody": lambda s: s.optimizer["state"].update({99: moments(s)}),
    "moments under a name": lambda s: s.optimizer["state"].update({"0": moments(s)}),
    "steps that are no number": lambda s: moments(s).update(step=torch.zeros(3)),
    "another schedule": lambda s: s.scheduler.pop("base_lrs"),
    "a schedule of words": lambda s: s.scheduler.update(last_epoch="9"),
    "no schedule": lambda s: setattr(s, "scheduler", []),
    "no curve": lambda s: setattr(s, "curve", []),
    "a curve of words": lambda s: s.curve[0].update(lr="fast"),
    "a curve of another task": lambda s: s.curve[0].update(mean_iou=0.5),
    "no average": lambda s: setattr(s, "average", None),
    "an average of another model": lambda s: s.average.pop("0.weight"),
    "an average of another size": lambda s: s.average.update({"0.weight": torch.zeros(1)}),
    "an average of words": lambda s: s.average.update({"0.weight": "heavy"}),
    "no best epoch": lambda s: setattr(s, "best", None),
    "a best epoch of another model": lambda s: s.best.update({"0.weight": torch.zeros(1)}),
    "no scale": lambda s: setattr(s, "scaler", {}),
    "a scale of words": lambda s: s.scaler.update(scale="large"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused(damage):
    _, states = go(RICH)
    DAMAGE[damage](states[0])
    with pytest.raises(RunError, match="checkpoint does not fit"):
        go(RICH, resume=states[0])


def test_what_a_training_does_not_keep_is_too_much():
    _, states = go(RICH)
    with pytest.raises(RunError, match="average is too much"):
        go(attrs.evolve(RICH, average=None), resume=states[0])
