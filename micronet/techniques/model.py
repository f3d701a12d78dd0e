"""The model kind: builds a network with fresh weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class Model(ABC):
    """Contract of a model."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, float32 on the CPU, initialised from torch's global random state."""
