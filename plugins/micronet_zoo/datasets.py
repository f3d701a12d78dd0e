"""Data sets of labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from micronet.errors import DataError, OptionError
from micronet.options import option
from micronet.techniques import Contents, Dataset

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset as TorchDataset

    Split = TorchDataset[tuple[Tensor, ...]]

_SPLIT_SEED = 0
"""Fixed, so that every run and every seed is measured on the same held-out images."""


@attrs.frozen(kw_only=True)
class Digits(Dataset):
    """scikit-learn's handwritten digits: 8x8 grey, resized to 3x32x32, four fifths for training."""

    @property
    def contents(self) -> Contents:
        return Contents((3, 32, 32), classes=10)

    def load(self) -> tuple[Split, Split]:
        import numpy as np
        import torch
        import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from torch.utils.data import TensorDataset

        raw = load_digits()
        images = torch.from_numpy(raw.images.astype(np.float32))[:, None] / 16
        images = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
        images = ((images - 0.5) / 0.5).expand(-1, 3, -1, -1).contiguous()
        labels = torch.from_numpy(raw.target.astype(np.int64))
        train, test = train_test_split(
            np.arange(len(labels)), test_size=0.2, random_state=_SPLIT_SEED, stratify=raw.target
        )
        return (
            TensorDataset(images[train], labels[train]),
            TensorDataset(images[test], labels[test]),
        )


@attrs.frozen(kw_only=True)
class CIFAR10(Dataset):
    """CIFAR-10 (Krizhevsky 2009), with random crops and flips for training."""

    root: str | None = option(
        None, doc="Folder that holds it, or takes it; by default the user's cache."
    )

    @property
    def contents(self) -> Contents:
        return Contents((3, 32, 32), classes=10)

    def load(self) -> tuple[Split, Split]:
        from torchvision import datasets, transforms

        normalize = [
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
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


@attrs.frozen(kw_only=True)
class ImageFolder(Dataset):
    """Images in folders: `root/train/CLASS/*.png` and `root/test/CLASS/*.png`.

    Resized on the short side, cropped to the middle, scaled to the mean and deviation of
    ImageNet; training images are cropped and flipped at random.
    """

    root: str = option(doc="Folder with the folders train and test (or val).")
    size: int = option(
        224, ge=1, most=10**4, doc="Height and width of the images that the model gets."
    )

    def __attrs_post_init__(self) -> None:
        try:
            there = self._folder.is_dir()
            whole = (self._folder / "train").is_dir() and self._test_folder is not None
        except (OSError, RuntimeError, ValueError) as error:  # too long, of no user, with a NUL
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            raise OptionError(f"root {self.root!r} can't be read: {reason}.", "root") from error
        if not whole:
            raise OptionError(
                f"root must hold a folder 'train' and a folder 'test' or 'val', and "
                f"{self.root!r} {'does not' if there else 'is no folder'}.",
                "root",
            )

    @property
    def contents(self) -> Contents:
        classes = sum(folder.is_dir() for folder in (self._folder / "train").iterdir())
        return Contents((3, self.size, self.size), classes)

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser()

    @property
    def _test_folder(self) -> Path | None:
        folders = (self._folder / name for name in ("test", "val"))
        return next((folder for folder in folders if folder.is_dir()), None)

    def load(self) -> tuple[Split, Split]:
        from torchvision import datasets, transforms

        root, test_folder = self._folder, self._test_folder
        assert test_folder is not None
        normalize = [
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
        augment = [transforms.RandomResizedCrop(self.size), transforms.RandomHorizontalFlip()]
        whole = [transforms.Resize(self.size * 8 // 7), transforms.CenterCrop(self.size)]
        try:
            train = datasets.ImageFolder(root / "train", transforms.Compose(augment + normalize))
            test = datasets.ImageFolder(test_folder, transforms.Compose(whole + normalize))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{root} can't be read: {error}") from error
        if train.classes != test.classes:
            odd = sorted(set(train.classes) ^ set(test.classes))
            raise DataError(f"{root}: train and {test_folder.name} differ in the class {odd[0]!r}.")
        return train, test


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("micronet")
