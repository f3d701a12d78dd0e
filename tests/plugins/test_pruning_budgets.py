"""Budgets are met by the pruned model itself, limits of layers hold, what stays has a reason."""

import re

import pytest
import torch
import torchvision
from any_pruned_model import relative, silenced
from torch import nn

from micronet.errors import NothingPrunedError, OptionError, PruningError
from micronet.measure import gflops, params_m

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def block(inputs, outputs, size=3, *, stride=1, up=False):
    convolution = (
        nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
        if up
        else nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def decoder():
    """Most of its operations are in transposed convolutions, whose outputs are four times as many
    as their inputs.
    """
    return nn.Sequential(
        block(3, 32, stride=2),
        block(32, 64, stride=2),
        block(64, 64, up=True),
        block(64, 32, up=True),
        block(32, 16, up=True),
        nn.Conv2d(16, 1, 1),
    )


class C2f(nn.Module):
    """As in YOLOv8: of two halves, one is read by a chain of bottlenecks as well."""

    def __init__(self, inputs, outputs, *, add):
        super().__init__()
        half = outputs // 2
        self.first, self.last = block(inputs, outputs, 1), block(4 * half, outputs, 1)
        self.chain = nn.ModuleList(
            nn.Sequential(block(half, half), block(half, half)) for _ in range(2)
        )
        self.add = add

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        for part in self.chain:
            y = part(parts[-1])
            parts.append(parts[-1] + y if self.add else y)
        return self.last(torch.cat(parts, 1))


def yolo(*, add):
    return nn.Sequential(
        block(3, 32, stride=2),
        C2f(32, 64, add=add),
        block(64, 64, stride=2),
        C2f(64, 128, add=add),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


class Mixing(nn.Module):
    """Products that no layer makes, of as many operations as its channels are squared."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 64, 4, 4), nn.Linear(64, 10)
        self.query, self.key, self.value, self.out = (
            nn.Linear(64, width, bias=False) for width in (128, 128, 128, 64)
        )
        self.back = nn.Linear(128, 64, bias=False)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = self.query(x), self.key(x), self.value(x)
        x = x + self.back((q @ k.transpose(1, 2)).softmax(-1) @ v)
        return self.head(self.out(x).relu().mean(1))


class ChannelAttention(nn.Module):
    """As in ECA-Net: a convolution runs along the channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.along = nn.Conv1d(1, 1, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        weights = self.along(x.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None]
        return self.head((x * weights).mean((2, 3)))


def part_gone(model, pruned):
    return {
        "params": 1 - params_m(pruned) / params_m(model),
        "flops": 1 - gflops(pruned, (X,)) / gflops(model, (X,)),
    }


BUILT = {
    "decoder": decoder,
    "c2f": lambda: yolo(add=False),
    "c2f with additions": lambda: yolo(add=True),
    "mixing": Mixing,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
}


@pytest.mark.parametrize("target", ["params", "flops"])
@pytest.mark.parametrize("percent", [0.3, 0.8])
@pytest.mark.parametrize("name", BUILT)
def test_a_budget_is_met(name, percent, target, create, with_statistics):
    torch.manual_seed(0)
    model = with_statistics(BUILT[name]())
    result = create("pruner", "normal", percent=percent, target=target).prune(model, (X,))
    assert part_gone(model, result.model)[target] == pytest.approx(percent, abs=0.01)
    assert result.remarks == ()
    with torch.no_grad():
        found, expected = result.model.eval()(X), silenced(model, result.plan).eval()(X)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("percent", [0.3, 0.8])
@pytest.mark.parametrize("name", ["decoder", "c2f", "resnet18"])
def test_multiples_of_eight_meet_a_budget_too(name, percent, create, with_statistics):
    torch.manual_seed(0)
    model = with_statistics(BUILT[name]())
    pruner = create("pruner", "regular", percent=percent, target="flops")
    pruned = pruner.prune(model, (X,)).model
    assert part_gone(model, pruned)["flops"] == pytest.approx(percent, abs=0.02)
    widths = [m.num_features for m in pruned.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(width % 8 == 0 for width in widths)


def test_a_step_too_large_for_a_budget_is_said(create, with_statistics):
    torch.manual_seed(0)
    model = with_statistics(decoder())
    pruner = create("pruner", "regular", multiple=32, percent=0.2, target="flops")
    result = pruner.prune(model, (X,))
    gone = part_gone(model, result.model)["flops"]
    assert abs(gone - 0.2) > 0.02
    assert result.remarks[0].startswith(f"{gone:.1%} of the flops went, not 20.0%: ")


def test_a_threshold_that_takes_another_part_of_the_channels_is_said(create, with_statistics):
    torch.manual_seed(0)
    model = with_statistics(decoder())
    result = create("pruner", "regular", multiple=32, percent=0.3).prune(model, (X,))
    assert re.match(r"(?!30)\d+\.0% of the channels that can go went, not 30\.0%", *result.remarks)


def test_halves_with_other_readers_keep_their_own_best_channels(create, with_statistics):
    torch.manual_seed(0)
    model = with_statistics(yolo(add=False))
    gammas = model[3].first[1].weight
    with torch.no_grad():
        gammas[:32] = torch.linspace(0.01, 0.02, 32)
    result = create("pruner", "normal", percent=0.5, target="params").prune(model, (X,))
    kept = result.plan.layers["3.first.0"].outputs
    halves = [[c for c in kept if c < 64], [c for c in kept if c >= 64]]
    assert len(halves[0]) == len(halves[1]) < 64
    for half, start in zip(halves, (0, 64), strict=True):
        order = gammas[start : start + 64].abs().argsort(descending=True)[: len(half)] + start
        assert sorted(half) == sorted(order.tolist())
    assert set(result.reasons) == {"6"}


def test_a_budget_that_no_choice_meets_is_refused_with_the_most(create, with_statistics):
    pruner = create("pruner", "normal", percent=0.9, target="params", layers={"*": {"max": 0.5}})
    with pytest.raises(
        PruningError, match=r"at most 7\d\.\d% of its params, not 90.0%: .* whole: 5: "
    ):
        pruner.prune(with_statistics(decoder()), (X,))


def test_limits_of_layers_hold(create, with_statistics):
    torch.manual_seed(0)
    model = with_statistics(decoder())
    limits = {"1.*": {"max": 0.25}, "2.0": {"least": 60}, "3.*": {"max": 0}}
    for target in ("channels", "flops"):
        pruner = create("pruner", "normal", percent=0.3, target=target, layers=limits, least=7)
        result = pruner.prune(model, (X,))
        widths = [result.model[i][1].num_features for i in range(5)]
        assert 48 <= widths[1] < 64
        assert widths[2] >= 60
        assert widths[3] == 32
        assert min(widths) >= 7
        assert result.reasons["3.0"] == "layers says so (3.*)"
    assert part_gone(model, result.model)["flops"] == pytest.approx(0.3, abs=0.02)


def test_a_limit_of_a_batch_norm_is_one_of_the_channels_that_go_through_it(create, with_statistics):
    pruner = create("pruner", "normal", layers={"0.1": {"max": 0}}, keep=["1.1"])
    result = pruner.prune(with_statistics(decoder()), (X,))
    assert [result.model[i][0].out_channels for i in (0, 1)] == [32, 64]


def test_a_least_width_is_rounded_up_to_the_multiple(create, with_statistics):
    pruner = create("pruner", "regular", percent=0.9, least=9)
    pruned = pruner.prune(with_statistics(decoder()), (X,)).model
    assert [pruned[i][1].num_features for i in range(5)] == [16] * 5


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"9.*": {"max": 0}}, r"layers names no layer of the model that has channels: '9\.\*'"),
        ({"0": {"max": 0}}, r"'0'\. Did you mean '0\.\*'\?"),
        ({"0.00": {"max": 0}}, r"'0\.00'\. Did you mean '0\.0'\?"),
    ],
)
def test_limits_of_no_layer_are_refused(limits, words, create):
    with pytest.raises(PruningError, match=words):
        create("pruner", "normal", layers=limits).prune(decoder(), (X,))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"0.*": {"mx": 0}}, r"layers '0\.\*' has no option 'mx'\. Did you mean 'max'\?"),
        ({"0.*": 0.5}, r"layers '0\.\*' needs max or least, as in {max: 0\.2}, got 0\.5"),
        ({"0.*": {"max": 2}}, r"layers '0\.\*': max must be between 0 and 1, got 2"),
    ],
)
def test_bad_limits_are_refused(limits, words, create):
    with pytest.raises(OptionError, match=words) as caught:
        create("pruner", "normal", layers=limits)
    assert caught.value.option == "layers"


def test_when_no_layer_can_shrink_the_error_has_the_reasons(create, with_statistics):
    with pytest.raises(NothingPrunedError) as caught:
        create("pruner", "normal").prune(with_statistics(ChannelAttention()), (X,))
    assert "stem, along: " in str(caught.value)
    assert "head: it gives the model's outputs" in str(caught.value)


def test_layers_below_the_multiple_of_regular_are_named(create, with_statistics):
    pruner = create("pruner", "regular", multiple=33, percent=0.3)
    result = pruner.prune(with_statistics(decoder()), (X,))
    assert result.reasons["0.0"] == "its 32 channels are fewer than the multiple 33"
    with pytest.raises(NothingPrunedError, match="its 64 channels are fewer than the multiple 65"):
        create("pruner", "regular", multiple=65).prune(with_statistics(decoder()), (X,))


def test_a_fraction_of_no_channel_is_refused(create, with_statistics):
    with pytest.raises(NothingPrunedError, match=r"With percent 0\.001, no layer would lose"):
        create("pruner", "normal", percent=0.001).prune(with_statistics(decoder()), (X,))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_model_with_numbers_that_are_none_is_refused(number, create, with_statistics):
    model = with_statistics(decoder())
    with torch.no_grad():
        model[1][1].weight[3] = number
    with pytest.raises(PruningError, match=r"1\.1\.weight holds NaN or infinite numbers"):
        create("pruner", "normal").prune(model, (X,))


def test_sparsity_without_batch_norms_is_refused(create):
    with pytest.raises(PruningError, match="Sequential has no batch norms with gammas"):
        create("pruner", "normal").regularize(nn.Sequential(nn.Linear(2, 2)))


def test_transposed_convolutions_are_counted_at_their_inputs():
    layer = nn.ConvTranspose2d(6, 8, 4, stride=2, padding=1, groups=2)
    images = torch.randn(1, 6, 10, 10)
    assert layer(images).shape == (1, 8, 20, 20)
    assert gflops(layer, (images,)) * 1e9 == 10 * 10 * 6 * (8 / 2) * 4 * 4
