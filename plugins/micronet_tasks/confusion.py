"""How often each class is taken for each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from micronet.techniques import Metric


class Confusion(Metric):
    """Mean intersection over union, and pixel accuracy, from one matrix of counts.

    Args:
        classes: How many there are.
        ignore_index: The class of pixels that do not count.
    """

    def __init__(self, classes: int, ignore_index: int) -> None:
        self.ignore_index = ignore_index
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, outputs: Any, targets: Tensor) -> None:
        from micronet_tasks.segmentation import resized

        logits = outputs["out"] if isinstance(outputs, Mapping) else outputs
        answers = resized(logits, targets).argmax(1)
        counted = targets != self.ignore_index
        classes = len(self.counts)
        pairs = targets[counted] * classes + answers[counted]
        self.counts += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def compute(self) -> Mapping[str, float]:
        """Classes that neither masks nor answers have do not count."""
        right = self.counts.diagonal().double()
        union = (self.counts.sum(0) + self.counts.sum(1)).double() - right
        pixels = float(self.counts.sum())
        return {
            "mean_iou": float((right / union)[union > 0].mean()) if pixels else 0.0,
            "pixel_accuracy": float(right.sum()) / pixels if pixels else 0.0,
        }

    def notes(self) -> list[str]:
        given = (self.counts.sum(0) > 0).nonzero().flatten().tolist()
        if len(given) == 1 and len(self.counts) > 1:
            return [f"every pixel of the test set gets class {given[0]}."]
        return []
