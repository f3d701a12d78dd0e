"""Scenes composed from scikit-learn's digits on its photographs; nothing is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from micronet.options import option
from micronet.techniques import Contents, Dataset
from micronet_zoo.preprocessing import NO_MEAN, NO_STD

if TYPE_CHECKING:
    from micronet_zoo.scenes import Scenes

LABELS = ("background", *"0123456789")


@attrs.frozen(kw_only=True)
class DigitScenes(Dataset):
    """One to four handwritten digits of several sizes, tints and contrasts on a photograph.

    Digits do not overlap. Scene `i` is drawn from the seed and `i` alone, so that it is the same
    in every process. Test scenes show other digits, on other parts of the photographs, than
    training scenes. Images are float32 in 0..1. The digit d has the label d + 1, and 0 is the
    background, in both views:

    - `detection`: `{"boxes": float32 [n, 4], "labels": int64 [n]}`, the boxes x1, y1, x2, y2 in
      pixels, around what a mask shows of the digit.
    - `segmentation`: an int64 mask [size, size], a label for each pixel.
    """

    targets: Literal["detection", "segmentation"] = option(
        "detection", doc="What comes with an image: boxes with labels, or a mask."
    )
    size: int = option(96, ge=64, le=192, doc="Height and width of the scenes in pixels.")
    train: int = option(2000, ge=2, most=10**7, doc="Number of training scenes.")
    test: int = option(400, ge=2, most=10**7, doc="Number of test scenes.")
    seed: int = option(0, ge=0, doc="What the scenes are drawn from.")

    @property
    def contents(self) -> Contents:
        shape = (3, self.size, self.size)
        return Contents(shape, len(LABELS), labels=LABELS, mean=NO_MEAN, std=NO_STD)

    def load(self) -> tuple[Any, Any]:
        return self._scenes("train", self.train), self._scenes("test", self.test)

    def _scenes(self, part: Literal["train", "test"], count: int) -> Scenes:
        from micronet_zoo.scenes import Scenes

        return Scenes(
            part, count, size=self.size, masks=self.targets == "segmentation", seed=self.seed
        )
