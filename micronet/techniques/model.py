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

    def structure(self) -> nn.Module:
        """The same network with any weights, which others take the place of.

        A model whose `build` fetches or reads weights overrides this: opening a run or a packed
        file calls it, and must neither need a network nor let a file choose what is fetched.
        """
        return self.build()
