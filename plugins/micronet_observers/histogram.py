"""A histogram of all values seen, in bounded memory, for observers that weigh every value."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, distributed

from micronet.quantization import Grid, ObserverModule, check_finite, share

_COUNTED = 1 << 18
"""Values of a tensor that are counted, evenly spaced: counting takes 50 times longer than finding
the extremes, and more would not change a range by a step."""


def counted(x: Tensor, bins: int, low: Tensor, high: Tensor, *, enabled: bool) -> Tensor:
    """Counts of the values of `x`, of all ranks, in equal bins from `low` to `high`.

    Of a tensor with more than 2^18 values, about that many are counted.
    """
    values = x.reshape(-1)
    if len(values) > _COUNTED:
        step = len(values) // _COUNTED | 1  # odd, so that it meets all columns of an image
        values = values[::step]
    counts = torch.histc(values, bins, float(low), float(high))
    if enabled and distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(counts)
    return counts


class HistogramModule(ObserverModule):
    """Counts values in equal bins; when a batch goes beyond them, they are spread anew.

    Args:
        axis: Dimension with a range of its own for each index. Those are whole tensors, weights,
                whose values need not be remembered: each index gets a histogram for a moment.
        grid: The integers that the range will be mapped to; by default 8 bits, asymmetric.
    """

    bins = 2048

    counts: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, axis: int | None = None, grid: Grid | None = None) -> None:
        super().__init__(axis)
        self.grid = grid or Grid(8, symmetric=False)
        self.register_buffer("counts", torch.zeros(self.bins, dtype=torch.float32))
        self.register_buffer("low", torch.tensor(torch.inf, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(-torch.inf, dtype=torch.float32))

    @abstractmethod
    def best_range(self, counts: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The range for values with these counts in equal bins from `low` to `high`, a scalar
        each, `low` < `high`.
        """

    @torch.no_grad()
    def forward(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        x = x.float()
        if self.axis is not None:
            ends = [self._range_of(channel) for channel in x.unbind(self.axis)]
            self.low, self.high = (torch.stack(side) for side in zip(*ends, strict=True))
            return
        low, high = share(*torch.aminmax(x), enabled=self.synchronized)
        check_finite(low, high)
        low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
        if not torch.isfinite(high - low):
            self.low, self.high = low, high
            return
        if low == high:
            self.low, self.high = low, high
            return
        if self.counts.any() and (low < self.low or high > self.high):
            self.counts = self._spread(low, high)
        self.low, self.high = low, high
        self.counts += counted(x, self.bins, low, high, enabled=self.synchronized)

    def range(self) -> tuple[Tensor, Tensor]:
        if self.axis is not None or not self.counts.any() or not torch.isfinite(self.high):
            return self.low, self.high
        return self.best_range(self.counts, self.low, self.high)

    def restart(self) -> None:
        self.counts = torch.zeros_like(self.counts)
        self.low = torch.full_like(self.low, torch.inf)
        self.high = torch.full_like(self.high, -torch.inf)

    def centers(self, low: Tensor, high: Tensor) -> Tensor:
        """The middle of each bin."""
        width = (high - low) / self.bins
        return low + (torch.arange(self.bins, device=low.device) + 0.5) * width

    def _range_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.aminmax(x)
        check_finite(low, high)
        if low == high or not torch.isfinite(high - low):
            return low, high
        return self.best_range(counted(x, self.bins, low, high, enabled=False), low, high)

    def _spread(self, low: Tensor, high: Tensor) -> Tensor:
        """The counts so far, in bins of a wider range: each bin's go where its middle lies."""
        width = (high - low) / self.bins
        places = ((self.centers(self.low, self.high) - low) / width).long().clamp_(0, self.bins - 1)
        return torch.zeros_like(self.counts).index_add_(0, places, self.counts)
