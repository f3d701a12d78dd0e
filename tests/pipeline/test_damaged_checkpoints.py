"""A training's checkpoint that no training left is refused before anything is loaded."""

import copy

import pytest
import torch
from torch import nn

from micronet.errors import DataError
from micronet.training.resuming import TrainingState, check_resumable

EPOCHS = 3


def training(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    options = {"lr": 0.1, "momentum": 0.9} if kind is torch.optim.SGD else {"lr": 0.1}
    optimizer = kind(model.parameters(), **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
    return model, optimizer, scheduler


def state_after_a_step(kind):
    model, optimizer, scheduler = training(kind)
    model(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    states = (part.state_dict() for part in (model, optimizer, scheduler))
    return TrainingState(1, *copy.deepcopy(list(states)))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_state_that_a_training_left_is_let_through(kind):
    check_resumable(state_after_a_step(kind), *training(kind)[1:], EPOCHS)


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
    "another schedule": lambda s: s.scheduler.pop("T_max"),
    "a schedule of words": lambda s: s.scheduler.update(T_max="9"),
    "no schedule": lambda s: setattr(s, "scheduler", []),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused(damage):
    state = state_after_a_step(torch.optim.AdamW)
    DAMAGE[damage](state)
    with pytest.raises(DataError):
        check_resumable(state, *training(torch.optim.AdamW)[1:], EPOCHS)
