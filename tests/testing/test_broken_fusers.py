"""Each contract of fusers, broken by one that is made to break it."""

import copy

import pytest
from broken import LooksAtValues, broken
from torch import nn

from micronet import registry
from micronet.testing import FUSER, ContractError, FuserCase, check_fuser

BatchNormFuser = registry.get("fuser", "bn")


class FusesInPlace(BatchNormFuser):
    def fuse(self, model, example_inputs):
        model.stem_bn.weight.data.zero_()
        return super().fuse(model, example_inputs)


class DropsBatchNorms(BatchNormFuser):
    def fuse(self, model, example_inputs):
        fused = copy.deepcopy(model)
        fused.stem_bn = nn.Identity()
        return fused


class LooksAtWeights(BatchNormFuser):
    def fuse(self, model, example_inputs):
        positive = (model.stem_bn.weight > 0).all()
        return super().fuse(model, example_inputs) if positive else copy.deepcopy(model)


class LeavesHooks(BatchNormFuser):
    def fuse(self, model, example_inputs):
        return LooksAtValues(super().fuse(model, example_inputs))


@pytest.mark.parametrize(
    ("name", "fuser"),
    [
        ("leaves_the_given_model_as_it_was", FusesInPlace()),
        ("keeps_outputs", DropsBatchNorms()),
        ("follows_structure_alone", LooksAtWeights()),
        ("runs_on_an_engine", LeavesHooks()),
    ],
)
def test_a_broken_fuser_is_told(name, fuser):
    broken(FUSER, FuserCase(fuser), name)


def test_a_misspelt_contract_is_answered_with_the_right_one():
    with pytest.raises(ContractError, match="Did you mean 'keeps_outputs'"):
        check_fuser(BatchNormFuser(), expected_failures={"keep_outputs": "?"})
