"""Images that lie in a folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs

from micronet.errors import DataError, OptionError
from micronet.options import option
from micronet.techniques import Contents, Dataset
from micronet_zoo.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MEAN_DOC,
    NO_MEAN,
    NO_STD,
    STD_DOC,
    Augmentation,
    check_statistics,
    is_there,
)


@attrs.frozen(kw_only=True)
class ImageFolder(Dataset):
    """Images in folders: `root/train/CLASS/*.png` and `root/test/CLASS/*.png`.

    They become float32 [3, size, size], red, green and blue. The defaults are those of
    photographs and ImageNet's weights; for text or digits choose `resize: stretch`, `augment: []`.
    """

    root: str = option(doc="Folder with the folders train and test (or val).")
    size: int = option(
        224, ge=1, most=10**4, doc="Height and width of the images that the model gets."
    )
    resize: Literal["crop", "stretch"] = option(
        "crop",
        doc="How images become squares: crop scales the short side to 8/7 of size and takes the "
        "middle, stretch scales both sides to size.",
    )
    augment: tuple[Augmentation, ...] = option(
        ("crop", "flip"),
        doc="What is done at random to training images: crop (8% to 100% of the area, instead of "
        "resize), flip (left to right), colour (brightness, contrast, saturation, hue).",
    )
    mean: tuple[float, float, float] | None = option(IMAGENET_MEAN, doc=MEAN_DOC)
    std: tuple[float, float, float] | None = option(IMAGENET_STD, doc=STD_DOC)

    def __attrs_post_init__(self) -> None:
        check_statistics(self.mean, self.std)
        there = is_there(self.root, "root", "folder")
        if not (there and (self._folder / "train").is_dir() and self._test_folder is not None):
            raise OptionError(
                f"root must hold a folder 'train' and a folder 'test' or 'val', and "
                f"{self.root!r} {'does not' if there else 'is no folder'}.",
                "root",
            )

    @property
    def contents(self) -> Contents:
        folders = (self._folder / "train").iterdir()
        labels = tuple(sorted(folder.name for folder in folders if folder.is_dir()))
        shape = (3, self.size, self.size)
        return Contents(
            shape,
            len(labels),
            labels=labels,
            mean=self.mean or NO_MEAN,
            std=self.std or NO_STD,
        )

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser()

    @property
    def _test_folder(self) -> Path | None:
        folders = (self._folder / name for name in ("test", "val"))
        return next((folder for folder in folders if folder.is_dir()), None)

    def load(self) -> tuple[Any, Any]:
        from torchvision import datasets

        root, test_folder = self._folder, self._test_folder
        assert test_folder is not None
        try:
            train = datasets.ImageFolder(root / "train", self._transform(self.augment))
            test = datasets.ImageFolder(test_folder, self._transform(()))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{root} can't be read: {error}") from error
        if train.classes != test.classes:
            odd = sorted(set(train.classes) ^ set(test.classes))
            raise DataError(f"{root}: train and {test_folder.name} differ in the class {odd[0]!r}.")
        return train, test

    def _transform(self, augment: tuple[Augmentation, ...]) -> Any:
        """What makes a tensor of an image as Pillow reads it."""
        from torchvision import transforms

        steps: list[Any]
        if "crop" in augment:
            steps = [transforms.RandomResizedCrop(self.size)]
        elif self.resize == "crop":
            steps = [transforms.Resize(self.size * 8 // 7), transforms.CenterCrop(self.size)]
        else:
            steps = [transforms.Resize((self.size, self.size))]
        if "flip" in augment:
            steps.append(transforms.RandomHorizontalFlip())
        if "colour" in augment:
            steps.append(transforms.ColorJitter(0.4, 0.4, 0.4, 0.02))
        steps.append(transforms.ToTensor())
        if self.mean is not None:
            steps.append(transforms.Normalize(self.mean, self.std))
        return transforms.Compose(steps)
