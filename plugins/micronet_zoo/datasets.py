"""Data sets of labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from micronet.errors import DataError
from micronet.options import option
from micronet.techniques import Contents, Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.utils.data import Dataset as TorchDataset

    Split = TorchDataset[tuple[Tensor, ...]]
    Array = NDArray[Any]

_SPLIT_SEED = 0
"""Fixed, so that every run and every seed is measured on the same held-out images."""
_CIFAR10_LABELS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR10_MEAN, _CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@attrs.frozen(kw_only=True)
class Digits(Dataset):
    """scikit-learn's handwritten digits: 8x8 grey, resized to 3x32x32, four fifths for training."""

    @property
    def contents(self) -> Contents:
        half = (0.5, 0.5, 0.5)
        return Contents((3, 32, 32), 10, labels=tuple("0123456789"), mean=half, std=half)

    def load(self) -> tuple[Split, Split]:
        import torch
        import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
        from torch.utils.data import TensorDataset

        def split(images: Array, labels: Array) -> Split:
            tensor = torch.from_numpy(images)[:, None]
            tensor = F.interpolate(tensor, size=(32, 32), mode="bilinear", align_corners=False)
            tensor = ((tensor - 0.5) / 0.5).expand(-1, 3, -1, -1).contiguous()
            return TensorDataset(tensor, torch.from_numpy(labels))

        train, test = digit_split()
        return split(*train), split(*test)


def digit_split() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """scikit-learn's digits for training and for the test: float32 [n, 8, 8] in 0..1, int64 [n]."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    images, labels = raw.images.astype(np.float32) / 16, raw.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=_SPLIT_SEED, stratify=labels
    )
    return (images[train], labels[train]), (images[test], labels[test])


@attrs.frozen(kw_only=True)
class CIFAR10(Dataset):
    """CIFAR-10 (Krizhevsky 2009), with random crops and flips for training."""

    root: str | None = option(
        None, doc="Folder that holds it, or takes it; by default the user's cache."
    )

    @property
    def contents(self) -> Contents:
        return Contents(
            (3, 32, 32), 10, labels=_CIFAR10_LABELS, mean=_CIFAR10_MEAN, std=_CIFAR10_STD
        )

    def load(self) -> tuple[Split, Split]:
        from torchvision import datasets, transforms

        normalize = [
            transforms.ToTensor(),
            transforms.Normalize(_CIFAR10_MEAN, _CIFAR10_STD),
        ]
        augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        root = Path(self.root or _cache() / "cifar10")
        try:
            root = root.expanduser()
            root.mkdir(parents=True, exist_ok=True)
            train = datasets.CIFAR10(
                root, train=True, transform=transforms.Compose(augment + normalize), download=True
            )
            test = datasets.CIFAR10(
                root, train=False, transform=transforms.Compose(normalize), download=True
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(
                f"CIFAR-10 is not in {root} and could not be fetched ({error}). Put "
                f"cifar-10-python.tar.gz there, or run once where there is a network."
            ) from error
        return train, test


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("micronet")
