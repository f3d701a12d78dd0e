"""The observers' options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.options import option
from micronet.techniques import Observer

if TYPE_CHECKING:
    from micronet.quantization import Grid, ObserverModule


@attrs.frozen(kw_only=True)
class MinMax(Observer):
    """The smallest and largest value seen since the start."""

    def build(self, axis: int | None = None, *, grid: Grid | None = None) -> ObserverModule:  # noqa: ARG002
        from micronet_observers.extremes import MinMaxModule

        return MinMaxModule(axis)


@attrs.frozen(kw_only=True)
class MovingAverage(Observer):
    """An exponential moving average of each batch's extremes (Jacob et al. 2018, section 3.1)."""

    momentum: float = option(0.1, gt=0, le=1, doc="Weight of the newest batch.")

    def build(self, axis: int | None = None, *, grid: Grid | None = None) -> ObserverModule:  # noqa: ARG002
        from micronet_observers.extremes import MovingAverageModule

        return MovingAverageModule(self.momentum, axis)


@attrs.frozen(kw_only=True)
class Percentile(Observer):
    """A moving average of a low and a high percentile of each batch: outliers are clipped.

    Of a tensor of more than 2^18 values, about that many are counted, evenly spaced.
    """

    percentile: float = option(
        0.9999, gt=0.5, le=1, doc="Fraction of the values within each end of the range."
    )
    momentum: float = option(0.1, gt=0, le=1, doc="Weight of the newest batch.")

    def build(self, axis: int | None = None, *, grid: Grid | None = None) -> ObserverModule:  # noqa: ARG002
        from micronet_observers.percentile import PercentileModule

        return PercentileModule(self.percentile, self.momentum, axis)


@attrs.frozen(kw_only=True)
class MSE(Observer):
    """The range with the least squared error of rounding and clipping, over all values seen.

    Of a tensor of more than 2^18 values, about that many are counted, evenly spaced; and the
    range always ends within the extremes of all.
    """

    def build(self, axis: int | None = None, *, grid: Grid | None = None) -> ObserverModule:
        from micronet_observers.mse import MSEModule

        return MSEModule(axis, grid)


@attrs.frozen(kw_only=True)
class Entropy(Observer):
    """The range whose codes keep most of the values' information (Migacz 2017).

    Of a tensor of more than 2^18 values, about that many are counted, evenly spaced.
    """

    def build(self, axis: int | None = None, *, grid: Grid | None = None) -> ObserverModule:
        from micronet_observers.entropy import EntropyModule

        return EntropyModule(axis, grid)
