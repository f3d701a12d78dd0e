"""Plans repeat a pruning elsewhere; the sparsity term is a gradient."""

import copy

import pytest
import torch
from torch import nn

from micronet.errors import PruningError
from micronet.pruning import Kept, PruningPlan, add_l1_gradient, apply_plan
from micronet.pruning.exactness import check_exact
from micronet.registry import create


@pytest.fixture
def result(small_net, images):
    return create("pruner", "normal", percent=0.4).prune(small_net, (images,))


def test_a_plan_survives_json(result):
    assert PruningPlan.from_json(result.plan.to_json()) == result.plan


def test_a_plan_makes_the_pruned_model_again_bit_for_bit(small_net, images, result):
    plan = PruningPlan.from_json(result.plan.to_json())
    again = apply_plan(small_net, plan)
    state = result.model.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())
    assert [str(module) for module in again.modules()] == [str(m) for m in result.model.modules()]
    assert torch.equal(again.eval()(images), result.model.eval()(images))


def test_applying_a_plan_leaves_the_model_and_its_training_settings(small_net, result):
    small_net.stem.weight.requires_grad_(requires_grad=False)
    before = copy.deepcopy(small_net.state_dict())
    again = apply_plan(small_net, result.plan)
    assert all(torch.equal(tensor, before[key]) for key, tensor in small_net.state_dict().items())
    assert not again.stem.weight.requires_grad
    assert again.body.weight.requires_grad
    assert again.training


def test_a_smaller_model_that_computes_something_else_is_refused(small_net, images, result):
    check_exact(small_net, result.model, result.plan, (images,))
    with torch.no_grad():
        result.model.body.weight.copy_(result.model.body.weight.flip(1))
    with pytest.raises(PruningError, match=r"Removing channels changes more than them: .* off by"):
        check_exact(small_net, result.model, result.plan, (images,))


class Several(nn.Module):
    """Takes a dictionary and a number."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x, scale):
        return self.head(self.body(x["image"])) * scale


def test_a_model_of_several_inputs_is_pruned(images):
    inputs = ({"image": images}, torch.tensor(2.0))
    model = Several().eval()
    pruned = create("pruner", "normal", percent=0.3).prune(model, inputs).model
    assert pruned.body[0].out_channels < 16
    assert pruned(*inputs).shape == model(*inputs).shape


def test_a_quantized_model_is_told_to_be_pruned_before(small_net, images):
    prepared = create("quantizer", "iao").prepare(small_net, (images,))
    with pytest.raises(PruningError, match="quantized already; prune it before"):
        create("pruner", "normal", percent=0.3).prune(prepared, (images,))


def test_a_plan_for_an_unknown_layer_is_refused_by_name(small_net):
    plan = PruningPlan({"trunk": Kept((0,), (0,))})
    with pytest.raises(PruningError, match="does not fit the model at 'trunk'"):
        apply_plan(small_net, plan)


def test_a_plan_with_channels_that_the_layer_lacks_is_refused_by_name(small_net):
    plan = PruningPlan({"stem": Kept((0, 8), (0, 1, 2))})
    with pytest.raises(PruningError, match="does not fit the model at 'stem'"):
        apply_plan(small_net, plan)


def test_a_plan_with_inputs_that_the_layer_lacks_is_refused_by_name(small_net):
    plan = PruningPlan({"stem": Kept((0, 1), (0, 1, 5))})
    with pytest.raises(PruningError, match="at 'stem': it has no channel 5"):
        apply_plan(small_net, plan)


def test_each_group_of_a_convolution_keeps_its_own_inputs():
    layer = nn.Conv2d(8, 4, 1, groups=2, bias=False)
    smaller = apply_plan(layer, PruningPlan({"": Kept((1, 3), (0, 3, 5, 6), groups=2)}))
    assert torch.equal(smaller.weight[0], layer.weight[1, [0, 3]])
    assert torch.equal(smaller.weight[1], layer.weight[3, [1, 2]])
    assert (smaller.in_channels, smaller.out_channels, smaller.groups) == (4, 2, 2)


def test_a_plan_for_a_layer_without_channels_is_refused_by_name(small_net):
    with pytest.raises(PruningError, match="'relu'"):
        apply_plan(small_net, PruningPlan({"relu": Kept((0,), (0,))}))


def test_a_plan_applied_a_second_time_is_refused(small_net, result):
    kept = result.plan.layers["stem"].outputs
    assert max(kept) >= len(kept)  # so that the smaller layer lacks one of them
    with pytest.raises(PruningError, match="does not fit the model"):
        apply_plan(result.model, result.plan)


def test_the_sparsity_term_adds_the_sign_of_every_gamma(small_net, images):
    small_net(images).sum().backward()
    before = {name: p.grad.clone() for name, p in small_net.named_parameters()}
    small_net.body_bn.weight.data[2] = 0
    add_l1_gradient(small_net, 0.25)
    for name, parameter in small_net.named_parameters():
        added = 0.25 * parameter.sign() if name in ("stem_bn.weight", "body_bn.weight") else 0
        assert torch.allclose(parameter.grad, before[name] + added)


def test_the_sparsity_term_reaches_batch_norms_of_every_dimension():
    model = nn.ModuleList([nn.BatchNorm1d(3), nn.BatchNorm3d(2), nn.BatchNorm2d(2, affine=False)])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    add_l1_gradient(model, 0.5)
    assert model[0].weight.grad.tolist() == [0.5] * 3
    assert model[1].weight.grad.tolist() == [0.5] * 2
    assert model[0].bias.grad.tolist() == [0.0] * 3


def test_gammas_that_do_not_learn_get_no_gradient(small_net, images):
    small_net.stem_bn.weight.requires_grad_(requires_grad=False)
    small_net(images).sum().backward()
    add_l1_gradient(small_net, 0.25)
    assert small_net.stem_bn.weight.grad is None


def test_without_gradients_of_gammas_the_sparsity_term_adds_nothing():
    model = nn.BatchNorm1d(2)
    add_l1_gradient(model, 0.1)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)])
def test_a_model_without_gammas_has_no_sparsity_term(model):
    with pytest.raises(PruningError, match=r"has no batch norms with gammas"):
        add_l1_gradient(model, 0.1)
