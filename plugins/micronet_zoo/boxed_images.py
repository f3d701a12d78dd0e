"""Reads images, and moves the boxes of their objects with their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from micronet.errors import DataError
from micronet_zoo.annotations import Object
from micronet_zoo.pairs import augmented, fitted, image_tensor, read_image
from micronet_zoo.preprocessing import Augmentation, Statistics

_LEAST_AREA = 0.2
"""Share of a box within a random crop, below which its object is dropped."""


@attrs.frozen(eq=False, kw_only=True)
class BoxedImages(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images float32 [3, height, width] and targets, as `COCO` describes them.

    Args:
        images: Files, and what is in each image.
        size: Of a square that images fit into; `None` leaves them as they are.
        augment: What is done at random.
        mean, std: Of the images, in 0..1.
    """

    images: Sequence[tuple[Path, Sequence[Object]]] = attrs.field(kw_only=False)
    size: int | None
    augment: Sequence[Augmentation]
    mean: Statistics | None
    std: Statistics | None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        file, objects = self.images[index]
        image = read_image(file)
        boxes = _within(
            tv_tensors.BoundingBoxes(
                torch.tensor([each.box for each in objects], dtype=torch.float32).reshape(-1, 4),
                format="XYXY",
                canvas_size=image.shape[-2:],
            )
        )
        whole = _areas(boxes)
        for area, each in zip(whole.tolist(), objects, strict=True):
            if area == 0:
                raise DataError(
                    f"The box {list(each.box)} (x1, y1, x2, y2) of the annotation {each.id} lies "
                    f"outside its image {file}, whose height and width are {list(image.shape[1:])}."
                )
        pair = augmented((image, boxes), self.augment, least_area=0.3)
        kept = _areas(_within(pair[1])) >= _LEAST_AREA * whole
        image, boxes = pair if self.size is None else fitted(pair, self.size)
        target = {
            "boxes": boxes.as_subclass(Tensor)[kept],
            "labels": torch.tensor([each.label for each in objects], dtype=torch.int64)[kept],
            "iscrowd": torch.tensor([each.crowd for each in objects], dtype=torch.bool)[kept],
        }
        return image_tensor(image, self.mean, self.std), target


def _within(boxes: tv_tensors.BoundingBoxes) -> tv_tensors.BoundingBoxes:
    """What of the boxes is within the image."""
    within: tv_tensors.BoundingBoxes = functional.clamp_bounding_boxes(boxes, clamping_mode="hard")
    return within


def _areas(boxes: tv_tensors.BoundingBoxes) -> Tensor:
    sides = boxes.as_subclass(Tensor)
    areas: Tensor = (sides[:, 2:] - sides[:, :2]).prod(1)
    return areas
