"""The observers' arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from micronet.quantization import RangeObserver


class MinMaxModule(RangeObserver):
    covers = True

    def update(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return torch.minimum(self.low, low), torch.maximum(self.high, high)


class MovingAverageModule(RangeObserver):
    """range <- range + momentum * (batch - range), starting at the first batch."""

    def __init__(self, momentum: float, axis: int | None = None) -> None:
        super().__init__(axis)
        self.momentum = momentum

    def update(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        first = self.low > self.high
        return (
            torch.where(first, low, torch.lerp(self.low, low, self.momentum)),
            torch.where(first, high, torch.lerp(self.high, high, self.momentum)),
        )

    def restart(self) -> None:
        """Does nothing: an average forgets by itself."""
