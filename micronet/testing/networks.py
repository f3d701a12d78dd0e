"""The small network and the images that techniques are examined with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


class Network(nn.Module):
    """Convolutions with batch norm, one of them in groups, a residual addition, two linear layers.

    Takes float32 [batch, 3, height, width] and gives [batch, 10].
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.body_bn = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=2, bias=False)
        self.grouped_bn = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(32, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem_bn(self.stem(x)))
        x = self.relu(x + self.body_bn(self.body(x)))
        x = self.relu(self.grouped_bn(self.grouped(x)))
        x = functional.relu(self.hidden(self.pool(x).flatten(1)))
        return self.head(x)  # type: ignore[no-any-return]


class TwoWays(nn.Module):
    """Has an expert for each of two kinds of batches, of which few images reach the first alone.

    Takes float32 [batch, 3, height, width] and gives [batch, 10].
    """

    FEW = 4

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.trunk = nn.Conv2d(16, 24, 3, padding=1)
            self.few, self.many = nn.Conv2d(24, 12, 1), nn.Conv2d(24, 12, 1)
            self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(functional.relu(self.norm(self.stem(x)))).relu()
        x = self.few(x) if len(x) <= self.FEW else self.many(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class SeveralOfBoth(nn.Module):
    """Takes images, a dict of a gate for each and of a table for all, and numbers of channels.

    Gives a map, a pair of a row for each image and of sums of the table, and integers.
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 4, 3, padding=1)

    def forward(
        self, image: Tensor, more: Mapping[str, Tensor], places: Tensor, factor: float = 2.0
    ) -> dict[str, Any]:
        x = self.stem(image) * more["gate"][:, :, None, None]
        return {
            "map": x * factor,
            "rows": (x.mean((2, 3)), more["table"].sum(1)),
            "places": places + 1,
        }


def several_inputs(count: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """What `SeveralOfBoth` takes, for so many images."""
    generator = torch.Generator().manual_seed(count)
    more = {
        "gate": torch.randn(count, 4, generator=generator),
        "table": torch.randn(5, 2, generator=generator),
    }
    return images(count), more, torch.arange(count * 4).reshape(count, 4)


def network() -> Network:
    """A network in eval mode, the same at every call, whose batch norms have statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Network().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.3, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
                nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return net


def images(count: int = 16, size: int = 16, seed: int = 0) -> Tensor:
    """float32 [count, 3, size, size], standard normal."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def labels(count: int = 16) -> Tensor:
    """int64 [count]."""
    return torch.arange(count) % CLASSES


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's state_dict."""
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str | None:
    """Where two states differ, as the start of a sentence; `None` if they don't."""
    for key, tensor in before.items():
        if key not in after:
            return f"{key!r} is gone"
        if tensor.shape != after[key].shape:
            return f"{key!r} had the shape {tuple(tensor.shape)}, has {tuple(after[key].shape)}"
        if not torch.equal(tensor, after[key]):
            return f"{key!r} has other values"
    new = [key for key in after if key not in before]
    return f"{new[0]!r} is new" if new else None


def far_apart(outputs: Tensor, wanted: Tensor, tolerance: float) -> str | None:
    """How far outputs are from those wanted, where that is beyond a fraction of their range."""
    if outputs.shape != wanted.shape:
        return f"outputs have the shape {tuple(outputs.shape)}, not {tuple(wanted.shape)}."
    error = float((outputs - wanted).abs().max() / (wanted.max() - wanted.min()))
    if error <= tolerance:  # NaN is not
        return None
    return f"outputs differ by {error:.2g} of their range; {tolerance:g} would be rounding."


@torch.no_grad()
def outputs_of(model: nn.Module, batch: Tensor) -> Tensor:
    """What a model gives in eval mode."""
    outputs: Tensor = model.eval()(batch)
    return outputs
