"""The dataset kind: brings labelled images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset as TorchDataset


@attrs.frozen
class Contents:
    """What a data set holds.

    Args:
        shape: Of each image: [channels, height, width].
        classes: How many its labels tell apart.
        labels: Their names, in the order of their numbers.
        mean: What was subtracted from each channel of an image in 0..1.
        std: What each channel was divided by after that.
    """

    shape: tuple[int, ...]
    classes: int
    labels: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class Dataset(ABC):
    """Contract of a data set."""

    @property
    def contents(self) -> Contents | None:
        """What it holds, where that is known without loading it; checked against the model."""
        return None

    @abstractmethod
    def load(self) -> tuple[TorchDataset[tuple[Tensor, ...]], TorchDataset[tuple[Tensor, ...]]]:
        """Training and test set; both give (float32 image [channels, height, width], label).

        Raises:
            DataError: The data is not there, can't be fetched or can't be read.
        """
