"""A small model without batch norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.options import option
from micronet.techniques import Model

if TYPE_CHECKING:
    from torch import nn


@attrs.frozen(kw_only=True)
class StripeNet(Model):
    """Three convolutions and a linear layer for 3x16x16 images of three classes."""

    width: int = option(16, ge=2, doc="Channels of each convolution.")

    def build(self) -> nn.Module:
        from torch import nn

        width = self.width
        return nn.Sequential(
            *(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)),
        )
