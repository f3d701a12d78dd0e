"""Integer grids and their scales (Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", section 2.1).
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

_SMALLEST_SCALE = 2.0**-40
"""A tensor of zeros would give scale 0; engines and reciprocals need more."""


@attrs.frozen
class Grid:
    """Which integers a tensor may take, and whether real zero sits at code zero.

    Args:
        bits: Width of a code, 2 to 16.
        symmetric: Zero point 0 and a scale from the largest magnitude; else both ends are used.
        narrow: Gives up one code: for symmetric grids the lowest, so that negation stays on the
            grid (weights); for asymmetric ones the highest.
    """

    bits: int
    symmetric: bool
    narrow: bool = False

    @property
    def quant_min(self) -> int:
        if not self.symmetric:
            return 0
        return -(1 << (self.bits - 1)) + int(self.narrow)

    @property
    def quant_max(self) -> int:
        if not self.symmetric:
            return (1 << self.bits) - 1 - int(self.narrow)
        return (1 << (self.bits - 1)) - 1

    def scale_and_zero_point(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The grid's mapping for an observed range, float32 and int32 in the shape of `low`.

        Symmetric: scale = max(|low|, |high|) / quant_max, zero point 0. Asymmetric: the range is
        widened to hold zero; scale = (high - low) / (quant_max - quant_min) and
        zero_point = quant_min - round(low / scale).
        """
        if self.symmetric:
            bound = torch.maximum(low.abs(), high.abs())
            scale = (bound / self.quant_max).clamp_min(_SMALLEST_SCALE)
            return scale, torch.zeros_like(scale, dtype=torch.int32)
        low, high = low.clamp_max(0), high.clamp_min(0)
        levels = self.quant_max - self.quant_min
        scale = (high / levels - low / levels).clamp_min(_SMALLEST_SCALE)  # high - low may overflow
        zero_point = self.quant_min - torch.round(low / scale)
        return scale, zero_point.clamp(self.quant_min, self.quant_max).to(torch.int32)
