"""How far numbers are off."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from micronet.techniques import Metric


class Differences(Metric):
    """Mean absolute error and root mean square error, over all values."""

    def __init__(self) -> None:
        self.absolute = self.squared = 0.0
        self.values = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        apart = outputs.double() - targets.double().reshape(outputs.shape)
        self.absolute += float(apart.abs().sum())
        self.squared += float((apart**2).sum())
        self.values += apart.numel()

    def compute(self) -> Mapping[str, float]:
        return {
            "mean_absolute_error": self.absolute / self.values,
            "rmse": math.sqrt(self.squared / self.values),
        }
