"""Images in a folder with the boxes of their objects in one file, as COCO has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from micronet.errors import DataError, listed
from micronet.options import option
from micronet.techniques import Contents, Dataset
from micronet_zoo.preprocessing import (
    MEAN_DOC,
    NO_MEAN,
    NO_STD,
    STD_DOC,
    Augmentation,
    check_path,
    check_statistics,
)

if TYPE_CHECKING:
    from micronet_zoo.boxed_images import BoxedImages


@attrs.frozen(kw_only=True)
class COCO(Dataset):
    """Images and COCO's JSON files (Lin et al. 2014): boxes for detection.

    A target is `{"boxes": float32 [n, 4], "labels": int64 [n], "iscrowd": bool [n]}`, the boxes
    x1, y1, x2, y2 in pixels of the image that the model gets. The categories get the labels 1, 2
    and so on in the order of their ids; 0 is the background. Images without objects have targets
    with n = 0. Boxes around a crowd are in the test set only: what an evaluation neither demands
    nor counts as wrong.
    """

    train_images: str = option(doc="Folder with the images for training.")
    train_annotations: str = option(doc="JSON file with their objects.")
    test_images: str = option(doc="Folder with the images for the test.")
    test_annotations: str = option(doc="JSON file with their objects.")
    size: int | None = option(
        640,
        ge=1,
        most=10**4,
        doc="Sides of the square that images are scaled to fit into, its rest filled with grey; "
        "null leaves each its size.",
    )
    augment: tuple[Augmentation, ...] = option(
        (),
        doc="What is done at random to training images: crop (30% to 100% of the area), flip "
        "(left to right), colour (brightness, contrast, saturation, hue).",
    )
    mean: tuple[float, float, float] | None = option(None, doc=MEAN_DOC)
    std: tuple[float, float, float] | None = option(None, doc=STD_DOC)

    def __attrs_post_init__(self) -> None:
        check_statistics(self.mean, self.std)
        for part in ("train", "test"):
            for name, kind in ((f"{part}_images", "folder"), (f"{part}_annotations", "file")):
                check_path(getattr(self, name), name, kind)  # type: ignore[arg-type]

    @property
    def contents(self) -> Contents | None:
        from micronet_zoo.annotations import read_categories

        if self.size is None:
            return None
        labels = ("background", *read_categories(Path(self.test_annotations).expanduser()))
        shape = (3, self.size, self.size)
        return Contents(
            shape,
            len(labels),
            labels=labels,
            mean=self.mean or NO_MEAN,
            std=self.std or NO_STD,
        )

    def load(self) -> tuple[Any, Any]:
        from micronet_zoo.annotations import Annotations

        train = Annotations.read(Path(self.train_annotations).expanduser())
        test = Annotations.read(Path(self.test_annotations).expanduser())
        if train.categories != test.categories:
            raise DataError(
                f"{self.train_annotations} and {self.test_annotations} must have the same "
                f"categories in the same order, got {listed(train.categories)} and "
                f"{listed(test.categories)}."
            )
        return (
            self._images(self.train_images, train.without_crowds(), self.augment),
            self._images(self.test_images, test, ()),
        )

    def _images(
        self, folder: str, annotations: Any, augment: tuple[Augmentation, ...]
    ) -> BoxedImages:
        from micronet_zoo.boxed_images import BoxedImages

        return BoxedImages(
            annotations.located(Path(folder).expanduser()),
            size=self.size,
            augment=augment,
            mean=self.mean,
            std=self.std,
        )
