"""Batch norms with fixed statistics, as pretrained detectors have them."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from micronet.registry import create

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class OwnFrozenNorm(nn.Module):
    """As DETR writes it."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        weight, bias = self.weight.reshape(1, -1, 1, 1), self.bias.reshape(1, -1, 1, 1)
        variance, mean = (
            self.running_var.reshape(1, -1, 1, 1),
            self.running_mean.reshape(1, -1, 1, 1),
        )
        scale = weight * (variance + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class OtherNorm(OwnFrozenNorm):
    """The same tensors, another function."""

    def forward(self, x):
        return super().forward(x).relu()


def network(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.Conv2d(8, 4, 3), norm(4))
    for name, buffer in model.named_buffers():
        nn.init.uniform_(buffer, *((-1, 1) if "mean" in name or "bias" in name else (0.5, 1.5)))
    return model.eval()


@pytest.fixture(params=[FrozenBatchNorm2d, OwnFrozenNorm])
def model(request):
    return network(request.param)


def norms_left(model):
    return [
        module
        for module in model.modules()
        if any("running" in n for n, _ in module.named_buffers(recurse=False))
    ]


def test_it_folds(model):
    fused = create("fuser", "bn").fuse(model, (X,))
    assert not norms_left(fused)
    assert torch.allclose(fused(X), model(X), atol=1e-5)


@pytest.mark.parametrize("fold_bn", ["after", "running", "batch"])
def test_a_prepared_one_trains_around_it_and_folds(model, fold_bn):
    quantizer = create("quantizer", "iao", fold_bn=fold_bn, per_channel=False)
    prepared = quantizer.prepare(model, (X,)).train()
    before = {name: value.clone() for name, value in prepared.named_buffers() if "running" in name}
    prepared(X).pow(2).mean().backward()
    assert all(torch.equal(prepared.get_buffer(name), value) for name, value in before.items())
    assert prepared[0].weight.grad.abs().sum() > 0
    fused = create("fuser", "bn").fuse(prepared.eval(), (X,))
    assert not norms_left(fused)
    assert torch.allclose(fused(X), prepared(X), atol=1e-4)


def test_its_tensors_keep_their_names(model):
    prepared = create("quantizer", "iao").prepare(model, (X,))
    assert set(model.state_dict()) <= set(prepared.state_dict())
    without_version = dict(prepared.state_dict())
    assert not any(prepared.load_state_dict(without_version))


def test_what_calibration_refines_knows_of_it(model):
    quantizer = create("quantizer", "iao", rounding="learned", equalize=True, bias_correction=True)
    prepared = quantizer.prepare(model, (X,))
    quantizer.calibrate(prepared, [X])
    assert (
        torch.nn.functional.cosine_similarity(prepared.eval()(X).flatten(), model(X).flatten(), 0)
        > 0.995
    )


def test_another_function_of_the_same_tensors_is_not_taken_for_it():
    model = network(OtherNorm)
    fused = create("fuser", "bn").fuse(model, (X,))
    assert len(norms_left(fused)) == 2
    assert torch.allclose(fused(X), model(X), atol=1e-5)


class LearningNorm(OwnFrozenNorm):
    """The same tensors and a parameter."""

    def __init__(self, channels):
        super().__init__(channels)
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x):
        return super().forward(x) + self.shift


class TrackingNorm(OwnFrozenNorm):
    """Frozen in eval mode; in train mode its mean follows the data."""

    def forward(self, x):
        if self.training:
            self.running_mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 2, 3)))
        return super().forward(x)


@pytest.mark.parametrize("norm", [LearningNorm, TrackingNorm])
@pytest.mark.filterwarnings("ignore:.*can't be followed")
def test_one_that_learns_or_follows_the_data_goes_on_doing_so(norm):
    model = network(norm).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    prepared = create("quantizer", "iao").prepare(model, (X,))
    assert all(torch.equal(model.get_buffer(name), value) for name, value in before.items())
    assert [type(norm_left) for norm_left in norms_left(prepared)] == [norm, norm]
    prepared.train()(X)
    moved = not torch.equal(prepared.get_buffer("1.running_mean"), before["1.running_mean"])
    assert moved == (norm is TrackingNorm)
