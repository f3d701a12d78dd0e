"""How many images get their own class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from micronet.techniques import Metric


class Accuracy(Metric):
    """Fraction of images whose label has the highest logit, or one of the highest.

    Args:
        top: Counts also how many labels are among so many highest logits.
    """

    def __init__(self, top: int | None = None) -> None:
        self.top = top
        self.images = self.right = self.among_top = 0
        self.classes = 0
        self.highest_label = -1
        self.given: set[int] = set()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        answers = outputs.argmax(1)
        self.images += len(outputs)
        self.right += int((answers == targets).sum())
        if self.top is not None:
            best = outputs.topk(self.top, 1).indices
            self.among_top += int((best == targets[:, None]).any(1).sum())
        self.classes = outputs.shape[1]
        self.highest_label = max(self.highest_label, int(targets.max()))
        self.given.update(torch.unique(answers).tolist())

    def compute(self) -> Mapping[str, float]:
        figures = {"accuracy": self.right / self.images}
        if self.top is not None:
            figures["top5"] = self.among_top / self.images
        return figures

    def notes(self) -> list[str]:
        notes = []
        if self.images > 1 and len(self.given) == 1:
            (only,) = self.given
            notes.append(f"every test image gets class {only}.")
        if self.classes != self.highest_label + 1:
            notes.append(
                f"the model has {self.classes} classes, and the labels of the test set end at "
                f"{self.highest_label}."
            )
        return notes
