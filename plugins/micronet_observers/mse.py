"""The range with the least squared error of rounding and clipping together."""

from __future__ import annotations

import torch
from torch import Tensor

from micronet.quantization import fake_quantize
from micronet_observers.histogram import HistogramModule

_CANDIDATES = 100


class MSEModule(HistogramModule):
    """Tries hundredths of the observed range and takes the best for the values seen."""

    def best_range(self, counts: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        values = self.centers(low, high)
        fractions = torch.arange(1, _CANDIDATES + 1).to(low) / _CANDIDATES
        scale, zero_point = self.grid.scale_and_zero_point(fractions * low, fractions * high)
        tried = values.expand(_CANDIDATES, -1)
        rounded = fake_quantize(tried, scale, zero_point, self.grid, axis=0)
        errors = ((rounded - tried) ** 2 * counts).sum(1)
        best = fractions[errors.argmin()]
        return best * low, best * high
