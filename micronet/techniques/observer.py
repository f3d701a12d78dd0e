"""The observer kind: decides which range of real numbers a quantized tensor covers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micronet.quantization import Grid, ObserverModule


class Observer(ABC):
    """Contract of an observer: options here, state in the module that it builds."""

    @abstractmethod
    def build(self, axis: int | None = None, *, grid: Grid | None = None) -> ObserverModule:
        """A module that watches one tensor.

        Args:
            axis: Dimension with a range of its own for each index; `None` for one range for all.
            grid: The integers that the range will be mapped to, for observers that weigh what
                rounding costs against what clipping costs.
        """
