"""The fuser kind: folds layers into their neighbours without changing what the model computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class Fuser(ABC):
    """Contract of a fuser."""

    @abstractmethod
    def fuse(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        """A copy of `model` with fewer layers and, in eval mode, the same outputs.

        Which layers are fused depends on the model's structure alone, not on its weights.
        """
