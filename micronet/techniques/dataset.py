"""The dataset kind: brings labelled images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset as TorchDataset


class Dataset(ABC):
    """Contract of a data set."""

    @abstractmethod
    def load(self) -> tuple[TorchDataset[tuple[Tensor, ...]], TorchDataset[tuple[Tensor, ...]]]:
        """Training and test set; both give (float32 image [channels, height, width], label).

        Raises:
            DataError: The data is not there, can't be fetched or can't be read.
        """
