"""Made data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.options import option
from micronet.techniques import Dataset

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset as TorchDataset


@attrs.frozen(kw_only=True)
class Stripes(Dataset):
    """Horizontal, vertical and diagonal stripes in noise: 3x16x16, three classes."""

    count: int = option(384, ge=3, doc="Images for training; a third as many for testing.")

    def load(self) -> tuple[TorchDataset[tuple[Tensor, ...]], TorchDataset[tuple[Tensor, ...]]]:
        return _stripes(self.count, seed=0), _stripes(self.count // 3, seed=1)


def _stripes(count: int, seed: int) -> TorchDataset[tuple[Tensor, ...]]:
    import torch
    from torch.utils.data import TensorDataset

    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    patterns = torch.stack([rows, columns, rows + columns]) // 2 % 2 * 2.0 - 1
    noise = torch.randn(count, 3, 16, 16, generator=generator)
    return TensorDataset(patterns[labels][:, None] + noise, labels)
