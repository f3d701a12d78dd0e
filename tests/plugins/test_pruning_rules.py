"""Which numbers of channels `regular` and `gc` leave, what a fraction means, what stays whole."""

import pytest
import torch
import torchvision
from any_pruned_model import relative, silenced
from torch import nn

from micronet.errors import OptionError, PruningError
from micronet.measure import gflops, params_m

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
GC_CFG = (32, 24, 32, 128, 64, 128, 512, 64)


@pytest.fixture
def nin(create, with_statistics):
    torch.manual_seed(0)
    return with_statistics(create("model", "nin", cfg=(20, 24, 6, 20, 24, 20, 17, 20)).build())


@pytest.fixture
def nin_gc(create, with_statistics):
    torch.manual_seed(0)
    return with_statistics(create("model", "nin_gc", cfg=GC_CFG).build())


def channels(model):
    return [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)][:-1]


@pytest.mark.parametrize("percent", [0.1, 0.5, 0.9])
def test_regular_keeps_the_multiple_nearest_to_what_normal_keeps(nin, create, percent):
    normal = channels(create("pruner", "normal", percent=percent).prune(nin, (X,)).model)
    regular = channels(
        create("pruner", "regular", percent=percent, multiple=8).prune(nin, (X,)).model
    )
    for before, kept, rounded in zip(channels(nin), normal, regular, strict=True):
        allowed = range(8, before + 1, 8) or [before]
        assert rounded in allowed
        assert abs(rounded - kept) == min(abs(number - kept) for number in allowed)


def test_what_regular_and_gc_keep_are_the_largest_gammas_of_the_layer(nin, create):
    for name in ("regular", "gc"):
        pruned = create("pruner", name, percent=0.5).prune(nin, (X,)).model
        before, after = (model.model[1].bn.weight.abs() for model in (nin, pruned))
        assert torch.equal(after.sort().values, before.sort().values[-len(after) :])


@pytest.mark.parametrize("percent", [0.25, 0.5, 0.75])
def test_gc_leaves_channels_that_the_groups_beside_divide(nin_gc, create, percent):
    result = create("pruner", "gc", percent=percent).prune(nin_gc, (X,))
    cfg = channels(result.model)
    assert sum(cfg) < sum(GC_CFG)
    for number, multiple in zip(cfg, (2, 2, 16, 16, 4, 32, 32, 8), strict=True):
        assert number % multiple == 0
    groups = [m.groups for m in result.model.modules() if isinstance(m, nn.Conv2d)]
    assert groups == [1, 2, 2, 16, 4, 4, 32, 8, 1]
    assert result.reasons.pop("model.10.conv") == "it gives the model's outputs"
    assert set(result.reasons.values()) <= {"what is above the threshold keeps all its channels"}


@pytest.mark.parametrize("percent", [0.25, 0.5, 0.75])
def test_shuffled_channels_still_go_where_they_went(nin_gc, create, percent):
    result = create("pruner", "gc", percent=percent).prune(nin_gc, (X,))
    with torch.no_grad():
        found, expected = result.model.eval()(X), silenced(nin_gc, result.plan).eval()(X)
    assert relative(found, expected) < 1e-5


def test_what_gc_leaves_is_the_network_of_the_zoo_with_these_channels(nin_gc, create):
    pruned = create("pruner", "gc", percent=0.5).prune(nin_gc, (X,)).model
    again = create("model", "nin_gc", cfg=tuple(channels(pruned))).build()
    again.load_state_dict(pruned.state_dict())
    assert torch.equal(again.eval()(X), pruned.eval()(X))


def test_normal_leaves_layers_beside_group_convolutions(create, with_statistics):
    model = with_statistics(torchvision.models.regnet_x_400mf())
    result = create("pruner", "normal", percent=0.3).prune(model, (X,))
    told = set(result.reasons.values())
    assert any("beside the group convolution trunk_output.block1" in why for why in told)
    assert params_m(result.model) < 0.9 * params_m(model)


def test_regular_keeps_multiples_of_the_groups_too(nin_gc, create):
    result = create("pruner", "regular", percent=0.5, multiple=8).prune(nin_gc, (X,))
    cfg = channels(result.model)
    assert sum(cfg) < sum(GC_CFG)
    for number, multiple in zip(cfg, (8, 8, 16, 16, 8, 32, 32, 8), strict=True):
        assert number % multiple == 0


@pytest.mark.parametrize("target", ["params", "flops"])
@pytest.mark.parametrize("percent", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_half_the_operations_are_half_the_operations(
    create, with_statistics, name, target, percent
):
    torch.manual_seed(0)
    model = with_statistics(torchvision.models.get_model(name, num_classes=10))
    pruned = create("pruner", "normal", percent=percent, target=target).prune(model, (X,)).model
    left = {"params": params_m(pruned) / params_m(model)}
    left["flops"] = gflops(pruned, (X,)) / gflops(model, (X,))
    assert left[target] == pytest.approx(1 - percent, abs=0.02)


def test_operations_that_cannot_go_are_said(create):
    model = torchvision.models.vit_b_32(image_size=32, num_classes=10)
    with pytest.raises(PruningError, match=r"at most \d+\.\d% of its flops"):
        create("pruner", "normal", percent=0.9, target="flops").prune(model, (X,))


def test_layers_that_keep_names_stay_whole(nin, create):
    pruner = create("pruner", "normal", percent=0.5, keep=["model.0.conv", "model.[45].*"])
    result = pruner.prune(nin, (X,))
    assert [m.out_channels for m in (result.model.model[i].conv for i in (0, 4, 5))] == [20, 20, 24]
    assert result.reasons["model.4.conv"] == "keep says so (model.[45].*)"
    assert result.model.model[1].conv.out_channels < 24


def test_a_name_in_keep_that_no_layer_has_is_refused_with_the_nearest(nin, create):
    with pytest.raises(PruningError, match=r"'model.0.convv'\. Did you mean 'model.0.conv'\?"):
        create("pruner", "normal", keep=["model.0.convv"]).prune(nin, (X,))


def test_without_batch_norms_the_smallest_filters_go_whatever_the_scale_of_their_layer(create):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 20, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(20, 10),
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight.mul_(100)
        for layer in (model[0], model[2]):
            layer.weight[::2].mul_(0.1)
    result = create("pruner", "normal", percent=0.5).prune(model, (X,))
    assert result.plan.layers["0"].outputs == result.plan.layers["2"].outputs
    assert result.plan.layers["0"].outputs == tuple(range(1, 20, 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "flop"}, "target must be one of 'channels', 'params', 'flops'"),
        ({"keep": "model.0"}, "keep must be a list"),
    ],
)
def test_bad_options_are_refused(create, options, words):
    with pytest.raises(OptionError, match=words):
        create("pruner", "normal", **options)
