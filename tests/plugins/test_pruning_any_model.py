"""Models that nobody wrote for micronet are pruned: exactly, trainable, and the engine agrees."""

import pytest
import torch
from any_pruned_model import (
    examine,
    model_with_statistics,
    relative,
    silenced,
    with_statistics,
)
from shallow_models import SHALLOW
from torch import nn

from micronet import registry

WHOLE = {
    "alexnet": 0.6,
    "convnext_tiny": 0.7,
    "densenet121": 0.7,
    "efficientnet_b0": 0.7,
    "googlenet": 0.65,
    "mnasnet0_5": 0.7,
    "mobilenet_v3_small": 0.75,
    "regnet_y_400mf": 0.7,
    "shufflenet_v2_x0_5": 0.9,
    "squeezenet1_1": 0.7,
    "swin_t": 0.92,
    "vit_b_32": 0.85,
}
"""torchvision models, and what may be left of their parameters and operations."""


def examined(model, size, directory, most):
    torch.manual_seed(0)
    pruner = registry.create("pruner", "gc", percent=0.3)
    outcome = examine(model, size, pruner, directory)
    assert outcome.params < most
    assert outcome.flops < most
    assert outcome.error is None or outcome.error < 1e-5
    assert outcome.engine_error < 1e-4


@pytest.mark.parametrize("name", [*SHALLOW, "mnasnet0_5", "squeezenet1_1"])
def test_a_torchvision_model_loses_channels_exactly_and_its_engine_agrees(name, tmp_path):
    torch.manual_seed(0)
    shallow = name in SHALLOW
    model, size = (SHALLOW[name](), 64) if shallow else model_with_statistics(name)
    examined(with_statistics(model), size, tmp_path, most=0.97)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_torchvision_model_loses_as_much_as_others_of_its_kind(name, tmp_path):
    model, size = model_with_statistics(name)
    examined(model, size, tmp_path, most=WHOLE[name])


class Attention(nn.Module):
    """Self-attention over the pixels, whose code takes the width of its heads from the tensors."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.stem, self.norm = nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16)
        self.query, self.key = nn.Linear(16, 24), nn.Linear(16, 24)
        self.value, self.out = nn.Linear(16, 24), nn.Linear(24, 16)
        self.place = nn.Parameter(torch.randn(1, 64, 16))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.norm(self.stem(x)).flatten(2).transpose(1, 2) + self.place
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        q, k, v = (
            layer(x).unflatten(2, (4, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.4)
        else:
            y = torch.einsum("bhnm,bhmd->bhnd", (0.4 * q @ k.transpose(-1, -2)).softmax(-1), v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return self.head(x[:, 0])


class Shared(nn.Module):
    """A convolution that is called twice, and two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.nothing = nn.Sequential()
        self.body = nn.Conv2d(12, 12, 3, padding=1)
        self.left, self.right = nn.Linear(12, 8), nn.Linear(12, 8)
        self.right.weight = self.left.weight
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.nothing(self.norm(self.stem(x)).relu())
        x = self.body(self.body(x).relu()).relu().mean((2, 3))
        return self.head(self.left(x).relu() + self.right(-x).relu())


class Halves(nn.Module):
    """Channels that are split, joined, shuffled, upsampled and go through a transposed conv."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.left, self.up = nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(16, 12, 2, 2)
        self.slope = nn.PReLU(12)
        self.gate = nn.Conv2d(12, 1, 1)
        self.scale = nn.Parameter(torch.rand(12, 1, 1) + 0.5)
        self.head = nn.Linear(12 * 16, 10)

    def forward(self, x):
        one, two = self.norm(self.stem(x)).relu().chunk(2, 1)
        x = self.slope(self.up(torch.cat([two, self.left(one)], 1))) * self.scale
        x = x * self.gate(x).sigmoid()
        return self.head(nn.functional.adaptive_max_pool2d(x, 4).flatten(1))


X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("build", [Shared, Halves], ids=["shared layers", "halves"])
@pytest.mark.parametrize("percent", [0.3, 0.6])
def test_a_users_model_loses_channels_exactly(build, percent, create, with_statistics):
    torch.manual_seed(0)
    model = with_statistics(build())
    result = create("pruner", "normal", percent=percent).prune(model, (X,))
    with torch.no_grad():
        found, expected = result.model.eval()(X), silenced(model, result.plan).eval()(X)
    assert relative(found, expected) < 1e-5
    assert sum(p.numel() for p in result.model.parameters()) < 0.9 * sum(
        p.numel() for p in model.parameters()
    )
    assert {*result.reasons} <= {"head", "gate"}  # the gate has one channel


def test_layers_that_share_a_weight_still_share_it(create, with_statistics):
    result = create("pruner", "normal", percent=0.5).prune(with_statistics(Shared()), (X,))
    assert result.model.left.weight is result.model.right.weight
    assert len(result.model.left.weight) < 8


@pytest.mark.parametrize("fused", [False, True])
def test_every_attention_head_loses_as_many_channels(fused, create, with_statistics):
    torch.manual_seed(0)
    model = with_statistics(Attention(fused=fused))
    result = create("pruner", "normal", percent=0.4).prune(model, (X,))
    layers = result.plan.layers
    assert layers["query"].outputs == layers["key"].outputs
    assert layers["value"].outputs == layers["out"].inputs
    for name in ("query", "value"):
        heads = [channel // 6 for channel in layers[name].outputs]
        assert len(heads) < 24
        assert {heads.count(head) for head in range(4)} == {len(heads) // 4}
    with torch.no_grad():
        found, expected = result.model.eval()(X), silenced(model, result.plan).eval()(X)
    assert relative(found, expected) < 1e-5
    assert layers["place"].axis == layers["token"].axis == 2


class Fixed(nn.Module):
    """Its code knows how many channels the second convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8 * 28 * 28, 10)

    def forward(self, x):
        return self.head(self.two(self.one(x).relu()).view(-1, 8 * 28 * 28))


def test_a_layer_whose_number_the_code_fixes_stays_and_the_others_go(create):
    result = create("pruner", "normal", percent=0.5).prune(Fixed(), (X,))
    assert result.model.one.out_channels == 4
    assert result.model.two.out_channels == 8
    assert result.reasons["two"].startswith("the code of Fixed fixes their number (")


class Sorting(nn.Module):
    """Sorts its first channels, which no graph can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.three, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x):
        x = self.two(self.one(x).sort(1).values).relu()
        return self.head(self.three(x).relu().mean((2, 3)))


def test_channels_that_cannot_be_followed_stay_and_the_operation_is_named(create):
    result = create("pruner", "normal", percent=0.5).prune(Sorting(), (X,))
    assert result.reasons["one"] == "its channels go through sort, which can't be followed"
    assert result.model.one.out_channels == 8
    assert result.model.two.out_channels + result.model.three.out_channels == 8


def test_auxiliary_classifiers_are_pruned_too_and_train_mode_goes_on_working(create):
    model, size = model_with_statistics("googlenet")
    images = torch.randn(2, 3, size, size)
    pruned = create("pruner", "normal", percent=0.5).prune(model, (images,)).model
    outputs = pruned.train()(images)
    assert [tuple(logits.shape) for logits in outputs] == [(2, 1000)] * 3
    assert pruned.aux1.conv.conv.in_channels < 512
