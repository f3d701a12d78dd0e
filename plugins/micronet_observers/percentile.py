"""A range that leaves the outliers of each batch out."""

from __future__ import annotations

import torch
from torch import Tensor

from micronet.quantization import ObserverModule, check_finite, share
from micronet_observers.histogram import counted

_BINS = 2048


class PercentileModule(ObserverModule):
    """Moving average of a low and a high percentile of each batch.

    Percentiles are read off a histogram of the batch, so nothing is sorted and nothing is kept.

    Args:
        percentile: Fraction of the values that lie below the upper end of the range; above the
            lower end lies the same fraction.
        momentum: Weight of the newest batch.
        axis: Dimension with a range of its own for each index.
    """

    low: Tensor
    high: Tensor

    def __init__(self, percentile: float, momentum: float, axis: int | None = None) -> None:
        super().__init__(axis)
        self.percentile = percentile
        self.momentum = momentum
        self.register_buffer("low", torch.tensor(torch.inf, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(-torch.inf, dtype=torch.float32))

    @torch.no_grad()
    def forward(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        x = x.float()
        if self.axis is None:
            low, high = self._ends(x)
        else:
            ends = [self._ends(channel) for channel in x.unbind(self.axis)]
            low, high = (torch.stack(side) for side in zip(*ends, strict=True))
        if self.low.shape != low.shape or bool((self.low > self.high).any()):
            self.low, self.high = low, high
            return
        self.low.lerp_(low, self.momentum)
        self.high.lerp_(high, self.momentum)

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = share(*torch.aminmax(x), enabled=self.synchronized)
        check_finite(low, high)
        if not torch.isfinite(high - low) or low == high:
            return low, high
        counts = counted(x, _BINS, low, high, enabled=self.synchronized)
        share_below = counts.cumsum(0) / counts.sum()
        width = (high - low) / _BINS
        lowest = torch.searchsorted(share_below, 1 - self.percentile)
        highest = torch.searchsorted(share_below, self.percentile).clamp_max(_BINS - 1)
        return low + lowest * width, low + (highest + 1) * width

    def range(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def restart(self) -> None:
        self.low = torch.full_like(self.low, torch.inf)
        self.high = torch.full_like(self.high, -torch.inf)
