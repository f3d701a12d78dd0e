"""The observers' options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.options import option
from micronet.techniques import Observer

if TYPE_CHECKING:
    from micronet.quantization import ObserverModule


@attrs.frozen(kw_only=True)
class MinMax(Observer):
    """The smallest and largest value seen since the start."""

    def build(self, axis: int | None = None) -> ObserverModule:
        from micronet_observers.modules import MinMaxModule

        return MinMaxModule(axis)


@attrs.frozen(kw_only=True)
class MovingAverage(Observer):
    """An exponential moving average of each batch's extremes (Jacob et al. 2018, section 3.1)."""

    momentum: float = option(0.1, gt=0, le=1, doc="Weight of the newest batch.")

    def build(self, axis: int | None = None) -> ObserverModule:
        from micronet_observers.modules import MovingAverageModule

        return MovingAverageModule(self.momentum, axis)
