"""The range that loses the least information."""

from __future__ import annotations

import torch
from torch import Tensor

from micronet_observers.histogram import HistogramModule

_STEP = 16
"""Bins between two thresholds that are tried."""


class EntropyModule(HistogramModule):
    """Clips magnitudes where the divergence between the values and their codes is least.

    For each threshold t: P is the distribution of |x| up to t, all beyond counted at t; Q is P
    spread evenly over the codes' intervals, empty bins left empty; t is taken where
    KL(P || Q) = sum P log(P / Q) is smallest (Migacz 2017, "8-bit Inference with TensorRT").
    """

    def best_range(self, counts: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        bound = torch.maximum(low.abs(), high.abs())
        magnitudes = self._folded(counts, low, high, bound)
        levels = self.grid.quant_max - self.grid.quant_min + 1
        if low < 0:
            levels //= 2
        start = min(max(levels, _STEP), self.bins)
        thresholds = range(start, self.bins + 1, _STEP)
        divergences = [_divergence(magnitudes, threshold, levels) for threshold in thresholds]
        best = thresholds[int(torch.stack(divergences).argmin())]
        limit = bound * best / self.bins
        return torch.maximum(low, -limit), torch.minimum(high, limit)

    def _folded(self, counts: Tensor, low: Tensor, high: Tensor, bound: Tensor) -> Tensor:
        """Counts of |x| in equal bins from 0 to `bound`."""
        places = self.centers(low, high).abs() / bound * self.bins
        places = places.long().clamp_(0, self.bins - 1)
        folded = torch.zeros_like(counts).index_add_(0, places, counts)
        folded[0] = folded[1]  # zeros, of ReLUs mostly, are exact on every grid
        return folded


def _divergence(counts: Tensor, threshold: int, levels: int) -> Tensor:
    inside = counts[:threshold]
    reference = inside.clone()
    reference[-1] += counts[threshold:].sum()
    interval = torch.arange(threshold, device=counts.device) * levels // threshold
    filled = (inside > 0).to(counts.dtype)
    sums = counts.new_zeros(levels).index_add_(0, interval, inside)
    used = counts.new_zeros(levels).index_add_(0, interval, filled)
    coded = (sums / used.clamp_min(1))[interval] * filled
    p, q = reference / reference.sum(), coded / coded.sum().clamp_min(1)
    smallest = torch.finfo(counts.dtype).tiny
    return torch.where(p > 0, p * ((p + smallest).log() - (q + 1e-9).log()), 0.0).sum()
