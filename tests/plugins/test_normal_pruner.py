"""The pruner `normal`: which channels go, and that what is left computes the same without them."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from micronet.errors import OptionError, PruningError
from micronet.pruning import PruningPlan, apply_plan

CFG = (12, 10, 6, 12, 12, 12, 12, 12)
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class Flattening(nn.Sequential):
    """A convolution whose channels spread over a linear layer's inputs, and a PReLU between."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 10, 3, stride=4),
            nn.BatchNorm2d(10),
            nn.PReLU(10),
            nn.Flatten(),
            nn.Linear(10 * 8 * 8, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Linear(12, 10),
        )


class Joining(nn.Module):
    """Two branches, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.left_bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.right, self.right_bn = nn.Conv2d(3, 9, 1), nn.BatchNorm2d(9)
        self.after, self.after_bn = nn.Conv2d(15, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.cat([self.left_bn(self.left(x)), self.right_bn(self.right(x))], 1).relu()
        return self.head(self.after_bn(self.after(x)).relu().mean((2, 3)))


@pytest.fixture
def nin(create, with_statistics):
    torch.manual_seed(0)
    return with_statistics(create("model", "nin", cfg=CFG).build())


@pytest.fixture
def prune(create):
    def run(model, percent):
        return create("pruner", "normal", percent=percent).prune(model, (X,))

    return run


def gammas(model):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return [bn.weight.detach().abs() for bn in norms[:-1]]  # the last gives the outputs


@pytest.mark.parametrize("percent", [0.1, 0.29, 0.5, 0.8])
def test_exactly_the_smallest_gammas_of_the_whole_model_go(nin, prune, percent):
    before = torch.cat(gammas(nin))
    after = torch.cat(gammas(prune(nin, percent).model))
    gone = round(percent * len(before))
    assert len(before) - len(after) == pytest.approx(gone, abs=1)
    assert torch.equal(after.sort().values, before.sort().values[-len(after) :])


def test_a_round_percentage_removes_exactly_its_share(create, prune, with_statistics):
    model = with_statistics(create("model", "nin", cfg=(20, 10, 10, 10, 10, 10, 10, 20)).build())
    for percent in (0.28, 0.29, 0.57, 0.58):  # 0.29 * 100 is 28.999999999999996 in floats
        left = torch.cat(gammas(prune(model, percent).model))
        assert len(left) == 100 - round(100 * percent), percent


def test_channels_with_a_gamma_of_zero_go_however_many_there_are(nin, prune):
    with torch.no_grad():
        for norm in [m for m in nin.modules() if isinstance(m, nn.BatchNorm2d)]:
            norm.weight[::2] = 0
    pruned = torch.cat(gammas(prune(nin, 0.4).model))
    assert len(pruned) <= 0.62 * len(torch.cat(gammas(nin)))


def test_a_layer_of_small_gammas_keeps_its_largest_channel(nin, prune):
    weight = nin.model[1].bn.weight
    with torch.no_grad():
        weight.mul_(1e-3)
    pruned = prune(nin, 0.5).model
    assert pruned.model[1].conv.out_channels == 1
    assert pruned.model[1].bn.weight.abs() == weight.abs().max()


def test_the_last_layer_stays_whole_and_the_reason_is_given(nin, prune):
    with torch.no_grad():
        nin.model[10].bn.weight.mul_(1e-6)
    result = prune(nin, 0.5)
    assert result.model.model[10].conv.out_channels == 10
    assert result.reasons == {"model.10.conv": "it gives the model's outputs"}


def test_the_plan_says_which_channels_stayed(nin, prune):
    result = prune(nin, 0.5)
    layers, previous = result.plan.layers, tuple(range(3))
    for index, kept in zip((0, 1, 2, 4, 5, 6, 8, 9), gammas(nin), strict=True):
        block = result.model.model[index]
        outputs = layers[f"model.{index}.conv"].outputs
        assert layers[f"model.{index}.conv"].inputs == previous
        assert layers[f"model.{index}.bn"].outputs == outputs
        assert torch.equal(block.bn.weight.abs(), kept[list(outputs)])
        assert block.conv.out_channels == len(outputs) == block.bn.num_features
        previous = outputs


def without_channels(model, plan):
    """The unpruned model with every channel that the plan drops silenced at its batch norm."""
    silenced = copy.deepcopy(model)
    for name, kept in plan.layers.items():
        bn = silenced.get_submodule(name)
        if isinstance(bn, nn.modules.batchnorm._BatchNorm):
            dropped = [i for i in range(bn.num_features) if i not in kept.outputs]
            with torch.no_grad():
                bn.weight[dropped] = 0
                bn.bias[dropped] = 0
    return silenced


MODELS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.35),
    "flattening": Flattening,
    "joining": Joining,
}


@pytest.fixture(scope="module", params=["nin", *MODELS])
def pruning(request, create, with_statistics):
    """A model and what is left of it."""
    torch.manual_seed(0)
    build = MODELS.get(request.param, lambda: create("model", "nin", cfg=CFG).build())
    model = with_statistics(build())
    return model, create("pruner", "normal", percent=0.4).prune(model, (X,))


def test_what_is_left_computes_what_the_model_did_with_those_channels_silent(pruning):
    model, result = pruning
    with torch.no_grad():
        expected = without_channels(model, result.plan).eval()(X)
        found = copy.deepcopy(result.model).eval()(X)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_what_is_left_is_smaller_and_trains(pruning):
    model, result = pruning
    count = [sum(p.numel() for p in m.parameters()) for m in (model, result.model)]
    assert count[1] < 0.85 * count[0]
    trained = copy.deepcopy(result.model).train()
    nn.functional.cross_entropy(trained(X), torch.tensor([0, 1])).backward()
    assert all(p.grad.isfinite().all() for p in trained.parameters())
    assert all(p.grad is None for p in result.model.parameters())


def test_the_plan_makes_the_same_model_from_the_original(pruning):
    model, result = pruning
    again = apply_plan(model, PruningPlan.from_json(result.plan.to_json()))
    state = result.model.state_dict()
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())
    with torch.no_grad():
        assert torch.equal(again.eval()(X), copy.deepcopy(result.model).eval()(X))


def test_the_model_itself_stays_as_it_was(nin, prune):
    state = copy.deepcopy(nin.state_dict())
    prune(nin, 0.5)
    assert nin.training
    assert all(torch.equal(tensor, state[key]) for key, tensor in nin.state_dict().items())
    assert all(p.grad is None for p in nin.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_what_learns_stay(nin, prune, training):
    nin.train(training)
    nin.model[0].conv.weight.requires_grad_(requires_grad=False)
    pruned = prune(nin, 0.5).model
    assert all(module.training is training for module in pruned.modules())
    frozen = [name for name, p in pruned.named_parameters() if not p.requires_grad]
    assert frozen == ["model.0.conv.weight"]


def test_each_layer_keeps_its_own_train_or_eval_mode(nin, prune):
    nin.train()
    nin.model[4].bn.eval()
    pruned = prune(nin, 0.5).model
    assert pruned.model[0].bn.training
    assert not pruned.model[4].bn.training


def test_group_convolutions_stay_whole_and_the_reason_is_given(create, prune):
    model = create("model", "nin_gc", cfg=(16, 16, 16, 32, 32, 32, 64, 64)).build()
    with pytest.raises(PruningError, match="group convolution"):
        prune(model, 0.5)


def test_a_model_whose_layers_all_stay_is_refused_with_their_reasons(prune):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(PruningError, match=r"No layer can be pruned: 0: it gives the model's"):
        prune(model, 0.5)


def test_a_model_that_does_not_run_on_the_example_is_refused_in_words(prune):
    with pytest.raises(PruningError, match="can't be followed"):
        prune(nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)), 0.5)


@pytest.mark.parametrize("percent", [0, 1, -0.5, 0.96, "half"])
def test_a_share_that_makes_no_sense_is_refused(create, percent):
    with pytest.raises(OptionError, match="percent must be"):
        create("pruner", "normal", percent=percent)


def test_the_sparsity_term_is_l1_on_gammas(nin, create):
    nin(X).sum().backward()
    before = nin.model[0].bn.weight.grad.clone()
    create("pruner", "normal").regularize(nin, strength=0.5)
    added = nin.model[0].bn.weight.grad - before
    assert torch.allclose(added, 0.5 * nin.model[0].bn.weight.sign(), atol=1e-5)


def test_a_pruned_model_is_quantized_and_fused_like_any_other(nin, prune, create):
    pruned = prune(nin, 0.5).model
    quantizer = create("quantizer", "iao")
    prepared = quantizer.prepare(pruned, (X,))
    quantizer.calibrate(prepared, [X])
    fused = create("fuser", "bn").fuse(prepared, (X,)).eval()
    assert torch.equal(quantizer.convert(fused)(X), fused(X))
