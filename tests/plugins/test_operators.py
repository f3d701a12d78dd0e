"""Operators of vision models, quantized, on every engine that is here, at batches and image sizes
that differ from the exported ones.
"""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

from micronet import registry
from micronet.errors import DeployError

X = torch.randn(8, 8, 12, 12, generator=torch.Generator().manual_seed(0))
SHAPES = [(8, 12, 12), (1, 12, 12), (3, 16, 10), (2, 9, 21)]
BACKENDS = [
    entry.name
    for entry in registry.list("deploy_backend")
    if entry.status == "ok" and registry.create("deploy_backend", entry.name).available() is None
]


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def shuffled(x):
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


OPERATORS = {
    "nearest by scale": lambda x: F.interpolate(x, scale_factor=2),
    "nearest by size": lambda x: F.interpolate(x, size=(20, 18)),
    "nearest to another's size": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:]),
    "bilinear by scale": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear by size": lambda x: F.interpolate(x, size=(20, 18), mode="bilinear"),
    "bilinear with corners": nn.Upsample((20, 18), mode="bilinear", align_corners=True),
    "global pooling": lambda x: x * F.adaptive_avg_pool2d(x, 1),
    "pooling to a size that divides": lambda x: F.adaptive_avg_pool2d(x, 4),
    "pooling to a size that does not": nn.AdaptiveAvgPool2d((5, 3)),
    "channel shuffle": nn.ChannelShuffle(4),
    "channel shuffle by hand": shuffled,
    # (With max pooling the sum's step would be twice that of x, and every other sum a tie.)
    "residual": lambda x: x + F.avg_pool2d(x, 3, 1, 1),
    "concatenation": lambda x: torch.cat([x, F.avg_pool2d(x, 3, 1, 1)], 1)[:, 4:12],
    "depthwise": nn.Conv2d(8, 8, 3, groups=8),
    "transposed": nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1),
}


class Branches(nn.Module):
    """Each operator between two convolutions; then the means of its 4 channels but for the first
    row and the last column, so that a shift shows.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(8, 8, 1)
        self.operators = nn.ModuleList(
            each if isinstance(each, nn.Module) else Lambda(each) for each in OPERATORS.values()
        )
        self.heads = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in OPERATORS)

    def forward(self, x):
        x = self.stem(x).relu()
        ways = zip(self.operators, self.heads, strict=True)
        outputs = [head(operate(x))[:, :, 1:, :-1].mean((2, 3)) for operate, head in ways]
        return torch.stack(outputs, 1).flatten(1)


def quantized(net):
    quantizer = registry.create("quantizer", "iao")
    prepared = quantizer.prepare(net.eval(), (X[:2],))
    quantizer.calibrate(prepared, [X])
    return quantizer.convert(prepared)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return quantized(Branches())


@pytest.fixture(scope="module")
def answers(model, tmp_path_factory):
    """What torch and an engine give for a shape of images: [batch, operators, 4] each."""

    @functools.cache
    def runner(backend):
        engine = registry.create("deploy_backend", backend)
        folder = tmp_path_factory.mktemp("engine")
        dynamic = ("batch", "height", "width")
        return engine.load(engine.export(model, (X[:2],), folder, dynamic=dynamic), threads=1)

    @functools.cache
    def run(backend, shape):
        batch, height, width = shape
        x = torch.randn(batch, 8, height, width, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            sides = model(x).numpy(), runner(backend)(x.numpy())
        return [side.reshape(batch, len(OPERATORS), 4) for side in sides]

    return run


@pytest.fixture(scope="module")
def steps(model):
    """1/255 of the range of each operator's outputs."""
    with torch.no_grad():
        outputs = model(X).numpy().reshape(len(X), len(OPERATORS), 4)
    return dict(zip(OPERATORS, np.ptp(outputs, (0, 2)) / 255, strict=True))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_engine_computes_an_operator_as_torch_does(answers, steps, backend, shape, operator):
    place = list(OPERATORS).index(operator)
    expected, found = (side[:, place] for side in answers(backend, shape))
    # One value that is rounded the other way before a head moves its outputs by a few steps.
    assert np.abs(found - expected).max() <= 2 * steps[operator]
    assert np.abs(found - expected).mean() <= 0.25 * steps[operator]


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_pooling_to_a_size_is_refused_where_sizes_may_differ(backend, tmp_path):
    pool = nn.AdaptiveMaxPool2d(3)
    net = quantized(nn.Sequential(nn.Conv2d(8, 8, 1), pool, nn.Flatten(), nn.Linear(72, 4)))
    engine = registry.create("deploy_backend", backend)
    with pytest.raises(DeployError, match=r"Adaptive max pooling to \(3, 3\) can't be exported"):
        engine.export(net, (X[:2],), tmp_path, dynamic=("batch", "height", "width"))
