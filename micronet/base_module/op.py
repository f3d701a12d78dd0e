"""Operations as modules, so that they can be replaced by their quantized twins."""

from __future__ import annotations

import functools
import operator

import torch
from torch import Tensor, nn

__all__ = ["Add", "Concat"]


class Add(nn.Module):
    """The sum of tensors of one shape."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return functools.reduce(operator.add, inputs)


class Concat(nn.Module):
    """Tensors one behind the other along `dim`; by default that of the channels."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim)
