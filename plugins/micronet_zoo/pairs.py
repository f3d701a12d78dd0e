"""Images with their boxes or masks, changed alike.

Images, boxes and masks are tv_tensors, so that a function of torchvision's does to each what it
needs: coordinates move with the pixels, and masks keep their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from micronet.errors import DataError, describe_error
from micronet_zoo.preprocessing import Augmentation, Statistics

_GREY = 114
"""What fills an image up, of 255."""

Pair = tuple[Any, Any]
"""An image and its boxes or its mask, as tv_tensors."""


def read_image(file: Path) -> tv_tensors.Image:
    """uint8 [3, height, width], red, green and blue.

    Raises:
        DataError: The file is not there or is no image.
    """
    try:
        with Image.open(file) as image:
            pixels = functional.pil_to_tensor(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"The image {file} can't be read: {describe_error(error)}.") from error
    return tv_tensors.Image(pixels)


def augmented(pair: Pair, augment: Sequence[Augmentation], *, least_area: float) -> Pair:
    """A pair changed at random.

    Args:
        pair: What to change.
        augment: Crop changes the size.
        least_area: Share of the image that a crop shows at least.
    """
    if "crop" in augment:
        place = v2.RandomResizedCrop.get_params(pair[0], [least_area, 1.0], [3 / 4, 4 / 3])
        pair = _both(pair, functional.crop, *place)
    if "flip" in augment and torch.rand(()) < 0.5:  # noqa: PLR2004 (half of them)
        pair = _both(pair, functional.horizontal_flip)
    if "colour" in augment:
        pair = v2.ColorJitter(0.4, 0.4, 0.4, 0.02)(pair[0]), pair[1]
    return pair


def resized(pair: Pair, height: int, width: int) -> Pair:
    return _both(pair, functional.resize, [height, width])


def fitted(pair: Pair, size: int) -> Pair:
    """Scaled to fit into a square, whose right or lower rest is grey."""
    height, width = pair[0].shape[-2:]
    scale = size / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    pair = resized(pair, height, width)
    return _both(pair, functional.pad, [0, 0, size - width, size - height], fill=_GREY)


def image_tensor(image: Any, mean: Statistics | None, std: Statistics | None) -> Tensor:
    """float32 of uint8 [3, height, width], in 0..1 or normalized."""
    tensor: Tensor = functional.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True)
    if mean is not None and std is not None:
        tensor = functional.normalize(tensor, list(mean), list(std))
    return tensor


def _both(pair: Pair, change: Any, *arguments: Any, **options: Any) -> Pair:
    image, target = (change(each, *arguments, **options) for each in pair)
    return image, target
