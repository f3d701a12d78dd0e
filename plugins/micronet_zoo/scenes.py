"""Draws the scenes of `digit_scenes`, each from its seed and number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from micronet_zoo.datasets import digit_split

Array = NDArray[Any]

_MOST_DIGITS = 4
_TRAINING_SHARE = 0.7
"""Of a photograph's width, from the left; test scenes have the rest."""
_INK = 0.5
"""Opacity from which on a pixel is the digit's."""
_ATTEMPTS = 8
"""At finding a free place for a digit; without one the scene has a digit less."""


class Scenes(Dataset[tuple[Tensor, Any]]):
    """Scenes with boxes or masks, as `DigitScenes` describes them.

    Args:
        part: Which digits and which parts of the photographs they are made of.
        count: How many there are.
        size: Of their sides, in pixels.
        masks: Whether the targets are masks; else they are boxes and labels.
        seed: What they are drawn from.
    """

    def __init__(
        self, part: Literal["train", "test"], count: int, *, size: int, masks: bool, seed: int
    ) -> None:
        train, test = digit_split()
        self.digits, self.classes = train if part == "train" else test
        self.photographs = _photographs(part)
        self.part, self.count, self.size, self.masks, self.seed = part, count, size, masks, seed
        self.sides = range(size // 6, size // 3 + 1)
        self.scalings = {side: _scaling(8, side) for side in self.sides}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        index = range(self.count)[index]
        rng = np.random.default_rng((self.seed, self.part == "test", index))
        image = self._background(rng)
        mask = np.zeros((self.size, self.size), np.int64)
        boxes, labels = [], []
        for opacity, label, (x1, y1, x2, y2) in self._digits(rng):
            pixels = image[:, y1:y2, x1:x2]
            pixels += opacity * (_tint(rng, pixels) - pixels)
            inked = opacity >= _INK
            mask[y1:y2, x1:x2][inked] = label
            rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
            box = (x1 + columns[0], y1 + rows[0], x1 + columns[-1] + 1, y1 + rows[-1] + 1)
            boxes.append(box)
            labels.append(label)
        if self.masks:
            return torch.from_numpy(image), torch.from_numpy(mask)
        target = {
            "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }
        return torch.from_numpy(image), target

    def _background(self, rng: np.random.Generator) -> Array:
        """A part of a photograph, mirrored or not, darker or not: float32 [3, size, size]."""
        photograph = self.photographs[rng.integers(len(self.photographs))]
        top, left = (rng.integers(side - self.size + 1) for side in photograph.shape[1:])
        crop = photograph[:, top : top + self.size, left : left + self.size]
        crop = crop[:, :, :: -1 if rng.random() < 0.5 else 1]  # noqa: PLR2004 (half of them)
        darkened: Array = crop * np.float32(rng.uniform(0.5, 1) / 255)
        return darkened

    def _digits(
        self, rng: np.random.Generator
    ) -> Iterator[tuple[Array, int, tuple[int, int, int, int]]]:
        """Opacities float32 [side, side], the label, and the place of each digit."""
        taken: list[tuple[int, int, int, int]] = []
        for _ in range(rng.integers(1, _MOST_DIGITS + 1)):
            number, side = rng.integers(len(self.digits)), int(rng.choice(self.sides))
            for x, y in rng.integers(self.size - side + 1, size=(_ATTEMPTS, 2)).tolist():
                place = (x, y, x + side, y + side)
                if not any(_overlap(place, other) for other in taken):
                    taken.append(place)
                    scaling = self.scalings[side]
                    opacity = scaling @ self.digits[number] @ scaling.T
                    yield opacity, int(self.classes[number]) + 1, place
                    break


def _tint(rng: np.random.Generator, pixels: Array) -> Array:
    """A colour that stands off from the mean of some pixels: float32 [3, 1, 1] in 0..1."""
    mean = pixels.mean((1, 2))
    contrast = rng.uniform(0.35, 0.8) * rng.uniform(0.6, 1, 3)
    brighter = mean.mean() < 0.5  # noqa: PLR2004 (of a range 0..1)
    tint = np.clip(mean + contrast if brighter else mean - contrast, 0, 1)
    column: Array = tint.astype(np.float32)[:, None, None]
    return column


def _overlap(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _scaling(old: int, new: int) -> Array:
    """The matrix [new, old] of a linear interpolation whose corners are pixels' outer edges."""
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    weights = 1 - np.abs(position[:, None] - np.arange(old))
    matrix: Array = np.clip(weights, 0, None).astype(np.float32)
    return matrix


def _photographs(part: str) -> list[Array]:
    """uint8 [3, height, width] each."""
    from sklearn.datasets import load_sample_images

    photographs = []
    for image in load_sample_images().images:
        edge = round(image.shape[1] * _TRAINING_SHARE)
        whole = np.ascontiguousarray(image.transpose(2, 0, 1))
        photographs.append(whole[:, :, :edge] if part == "train" else whole[:, :, edge:])
    return photographs
