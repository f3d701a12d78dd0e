"""Each contract of pruners, broken by one that is made to break it."""

import copy

import attrs
import pytest
import torch
from broken import LooksAtValues, broken

from micronet import registry
from micronet.errors import PruningError
from micronet.pruning import Kept, PruningPlan, apply_plan
from micronet.techniques import PruningResult
from micronet.testing import (
    PRUNER,
    PrunerCase,
)

Normal = registry.get("pruner", "normal")


class PrunesInPlace(Normal):
    def prune(self, model, example_inputs):
        model.stem.weight.data.zero_()
        return super().prune(model, example_inputs)


class Masks(Normal):
    def prune(self, model, example_inputs):
        masked = copy.deepcopy(model)
        masked.stem.weight.data[:8] = 0
        return PruningResult(masked, PruningPlan({}), {})


def changed_result(**changes):
    class Changed(Normal):
        def prune(self, model, example_inputs):
            result = super().prune(model, example_inputs)
            made = {name: change(result) for name, change in changes.items()}
            return attrs.evolve(result, **made)

    return Changed(percent=0.4)


def detached(result):
    for parameter in result.model.parameters():
        parameter.requires_grad_(False)
    return result.model


def random_plan(result):
    layers = dict(result.plan.layers)
    name = sorted(layers)[int(torch.randint(len(layers), ()))]
    return PruningPlan({**layers, f"{name}{torch.rand(())}": layers[name]})


class TrustsTheExample(Normal):
    """Sees nothing but the layers that the example inputs reach."""

    def prune(self, model, example_inputs):
        if not hasattr(model, "many"):
            return super().prune(model, example_inputs)
        twelve, inputs = tuple(range(12)), tuple(range(16))
        plan = PruningPlan({"trunk": Kept(twelve, inputs), "few": Kept(twelve, twelve)})
        return PruningResult(apply_plan(model, plan), plan, {})


class SaysNothing(Normal):
    def prune(self, model, example_inputs):
        try:
            return super().prune(model, example_inputs)
        except PruningError:
            return PruningResult(copy.deepcopy(model), PruningPlan({}), {})


class MovesWeights(Normal):
    def regularize(self, model, strength=1e-4):
        model.stem.weight.data.mul_(0.9)


class MixesChannels(Normal):
    def prune(self, model, example_inputs):
        result = super().prune(model, example_inputs)
        layers = {
            name: attrs.evolve(kept, inputs=kept.inputs[::-1])
            for name, kept in result.plan.layers.items()
        }
        plan = PruningPlan(layers)
        return attrs.evolve(result, plan=plan, model=apply_plan(model, plan))


@pytest.mark.parametrize(
    ("name", "pruner"),
    [
        ("leaves_the_given_model_as_it_was", PrunesInPlace(percent=0.4)),
        ("makes_it_smaller", Masks(percent=0.4)),
        ("trains", changed_result(model=detached)),
        ("repeats_by_its_plan", changed_result(plan=lambda _: PruningPlan({}))),
        ("computes_what_is_left", MixesChannels(percent=0.4)),
        ("reloads", changed_result(plan=lambda _: PruningPlan({}))),
        ("repeats", changed_result(plan=random_plan)),
        ("names_layers", changed_result(reasons=lambda _: {"conv": "it is no layer"})),
        ("spares_what_it_cannot_see", TrustsTheExample(percent=0.4)),
        ("says_when_nothing_goes", SaysNothing(percent=0.4)),
        ("regularizes_gradients_alone", MovesWeights(percent=0.4)),
        ("runs_on_an_engine", changed_result(model=lambda result: LooksAtValues(result.model))),
    ],
)
def test_a_broken_pruner_is_told(name, pruner):
    broken(PRUNER, PrunerCase(pruner), name)
