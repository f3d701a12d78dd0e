"""Images with a mask each, in folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from micronet.errors import DataError, OptionError, listed
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
    check_path,
    check_statistics,
)

if TYPE_CHECKING:
    from micronet_zoo.masks import MaskedImages

_IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@attrs.frozen(kw_only=True)
class SegmentationFolder(Dataset):
    """Images and masks in folders, paired by what their paths have before the suffix.

    A mask is a file with a palette or in grey whose pixels are the classes' numbers; 255 stands
    for pixels to ignore. Images become float32 [3, height, width], masks int64 [height, width];
    masks are scaled without making new numbers.
    """

    train_images: str = option(doc="Folder with the images for training, and folders of them.")
    train_masks: str = option(doc="Folder with their masks, laid out alike.")
    test_images: str = option(doc="Folder with the images for the test.")
    test_masks: str = option(doc="Folder with their masks.")
    classes: int = option(ge=2, le=255, doc="How many classes the masks tell apart, from 0.")
    labels: tuple[str, ...] | None = option(None, doc="The names of the classes, in their order.")
    image_suffix: str | None = option(
        None, doc="How the images' names end after the part that pairs; null for any extension."
    )
    mask_suffix: str = option(".png", doc="How the masks' names end after that, as in _mask.png.")
    size: int | tuple[int, int] = option(
        256,
        ge=1,
        most=10**5,
        doc="Sides that images and masks are scaled to, one number or [height, width].",
    )
    augment: tuple[Augmentation, ...] = option(
        (),
        doc="What is done at random to training images: crop (25% to 100% of the area), flip "
        "(left to right), colour (brightness, contrast, saturation, hue).",
    )
    mean: tuple[float, float, float] | None = option(IMAGENET_MEAN, doc=MEAN_DOC)
    std: tuple[float, float, float] | None = option(IMAGENET_STD, doc=STD_DOC)

    def __attrs_post_init__(self) -> None:
        check_statistics(self.mean, self.std)
        if self.labels is not None and len(self.labels) != self.classes:
            raise OptionError(
                f"labels must name the {self.classes} classes, got {len(self.labels)}.", "labels"
            )
        if min(self._sides) < 1:
            raise OptionError(f"size must be at least 1, got {list(self._sides)}.", "size")
        for name in ("train_images", "train_masks", "test_images", "test_masks"):
            check_path(getattr(self, name), name, "folder")

    @property
    def contents(self) -> Contents:
        return Contents(
            (3, *self._sides),
            self.classes,
            labels=self.labels,
            mean=self.mean or NO_MEAN,
            std=self.std or NO_STD,
        )

    @property
    def _sides(self) -> tuple[int, int]:
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def load(self) -> tuple[Any, Any]:
        return (
            self._masked(self.train_images, self.train_masks, self.augment),
            self._masked(self.test_images, self.test_masks, ()),
        )

    def _masked(self, images: str, masks: str, augment: tuple[Augmentation, ...]) -> MaskedImages:
        from micronet_zoo.masks import MaskedImages

        return MaskedImages(
            self._pairs(Path(images).expanduser(), Path(masks).expanduser()),
            classes=self.classes,
            sides=self._sides,
            augment=augment,
            mean=self.mean,
            std=self.std,
        )

    def _pairs(self, images: Path, masks: Path) -> list[tuple[Path, Path]]:
        """Each image with its mask, in the order of their paths."""
        pairs: dict[str, tuple[Path, Path]] = {}
        for image in sorted(path for path in images.rglob("*") if self._is_image(path)):
            stem = str(image.relative_to(images)).removesuffix(self.image_suffix or image.suffix)
            mask = masks / f"{stem}{self.mask_suffix}"
            if stem in pairs:
                raise DataError(f"{pairs[stem][0]} and {image} have one mask, {mask}.")
            if not mask.is_file():
                raise DataError(f"The image {image} has no mask; {mask} is not there.")
            pairs[stem] = image, mask
        if not pairs:
            ending = listed(_IMAGES) if self.image_suffix is None else self.image_suffix
            raise DataError(f"{images} holds no image whose name ends in {ending}.")
        return list(pairs.values())

    def _is_image(self, path: Path) -> bool:
        if self.image_suffix is None:
            return path.suffix.lower() in _IMAGES
        return path.name.endswith(self.image_suffix)
