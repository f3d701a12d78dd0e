"""The model kind: builds a network with fresh weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import nn


class Model(ABC):
    """Contract of a model."""

    has_batch_norms: ClassVar[bool | None] = None
    """Whether it has batch norms with gammas; `None` if only the built network can tell."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, float32 on the CPU, initialised from torch's global random state."""
