"""Reads images and their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from micronet.errors import DataError, describe_error
from micronet_zoo.pairs import augmented, image_tensor, read_image, resized
from micronet_zoo.preprocessing import Augmentation, Statistics

IGNORED = 255
"""The number of pixels that neither train nor count."""
_OF_LABELS = ("1", "L", "P", "I", "I;16")
"""Pillow's modes with a number a pixel."""


@attrs.frozen(eq=False, kw_only=True)
class MaskedImages(Dataset[tuple[Tensor, Tensor]]):
    """Images float32 [3, height, width] and masks int64 [height, width], from files.

    Args:
        pairs: The files of each image and of its mask.
        classes: What the masks' numbers are below, but for 255.
        sides: Height and width.
        augment: What is done at random.
        mean, std: Of the images, in 0..1.
    """

    pairs: Sequence[tuple[Path, Path]] = attrs.field(kw_only=False)
    classes: int
    sides: tuple[int, int]
    augment: Sequence[Augmentation]
    mean: Statistics | None
    std: Statistics | None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_file, mask_file = self.pairs[index]
        image, mask = read_image(image_file), self._read_mask(mask_file)
        if image.shape[1:] != mask.shape:
            raise DataError(
                f"{mask_file} has {list(mask.shape)} pixels (height, width), and its image "
                f"{image_file.name} has {list(image.shape[1:])}."
            )
        pair = augmented((image, tv_tensors.Mask(mask)), self.augment, least_area=0.25)
        image, mask = resized(pair, *self.sides)
        return image_tensor(image, self.mean, self.std), mask.as_subclass(Tensor)

    def _read_mask(self, file: Path) -> Tensor:
        """int64 [height, width]."""
        try:
            with Image.open(file) as mask:
                mode, labels = mask.mode, np.asarray(mask)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"The mask {file} can't be read: {describe_error(error)}.") from error
        if mode not in _OF_LABELS:
            raise DataError(
                f"The mask {file} is of Pillow's mode {mode}; a mask has one number for each "
                f"pixel, in grey or with a palette."
            )
        labels = labels.astype(np.int64)
        wrong = labels[(labels < 0) | ((labels >= self.classes) & (labels != IGNORED))]
        if wrong.size:
            raise DataError(
                f"The mask {file} holds the number {wrong[0]}; allowed are 0 to "
                f"{self.classes - 1} for the classes, and {IGNORED} for pixels to ignore."
            )
        return torch.from_numpy(labels)
