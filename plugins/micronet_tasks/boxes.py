"""Boxes of images: how good they are, and how far two models find the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torchvision.ops import box_iou

from micronet.techniques import Metric

_SAME = 0.5
"""Intersection over union from which two boxes are one."""
_NEARLY = 0.8
"""A box may be found again with so much of the least score, which is no sharp border."""


@attrs.frozen(eq=False)
class Boxes:
    """Of one image, the best first.

    Args:
        boxes: float32 [boxes, 4]: left, top, right, bottom, in pixels.
        scores: float32 [boxes], from 0 to 1.
        labels: int64 [boxes], the class's number.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    @classmethod
    def of(cls, given: Mapping[str, Tensor], min_score: float, max_boxes: int) -> Boxes:
        """The best of torchvision's boxes."""
        order = given["scores"].argsort(descending=True, stable=True)[:max_boxes]
        order = order[given["scores"][order] >= min_score]
        return cls(given["boxes"][order], given["scores"][order], given["labels"][order])

    def above(self, score: float) -> Boxes:
        kept = self.scores >= score
        return Boxes(self.boxes[kept], self.scores[kept], self.labels[kept])


def agreement(ones: Sequence[Boxes], others: Sequence[Boxes], score: float) -> Tensor:
    """Fraction of each image's boxes that the other side has too: float64 [images].

    Every box of that score or more must have, on the other side, one of its class that overlaps it
    by half or more. Images without boxes on both sides agree.
    """
    return torch.tensor(
        [_both_ways(one, other, score) for one, other in zip(ones, others, strict=True)],
        dtype=torch.float64,
    )


def _both_ways(one: Boxes, other: Boxes, score: float) -> float:
    sides = [(one.above(score), other), (other.above(score), one)]
    asked = sum(len(side.boxes) for side, _ in sides)
    if not asked:
        return 1.0
    return sum(_found_again(side, again.above(score * _NEARLY)) for side, again in sides) / asked


def _found_again(boxes: Boxes, again: Boxes) -> int:
    """How many boxes have a partner; each is partner of one, better scores first."""
    if not len(boxes.boxes) or not len(again.boxes):
        return 0
    overlaps = box_iou(boxes.boxes, again.boxes)
    overlaps[boxes.labels[:, None] != again.labels[None]] = 0
    count = 0
    for row in overlaps:
        best = int(row.argmax())
        if row[best] >= _SAME:
            overlaps[:, best] = 0
            count += 1
    return count


class CocoPrecision(Metric):
    """Average precision as COCO defines it: the mean of overlaps 0.5 to 0.95, and at 0.5.

    Args:
        decoded: From a model's outputs to the boxes of each image.
    """

    def __init__(self, decoded: Callable[[Any], list[Boxes]]) -> None:
        self.decoded = decoded
        self.images = 0
        self.truths: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.labels: set[int] = set()

    def update(self, outputs: Any, targets: Any) -> None:
        for found, target in zip(self.decoded(outputs), targets, strict=True):
            self.images += 1
            crowds = target.get("iscrowd", torch.zeros(len(target["labels"])))
            for box, label, crowd in zip(
                target["boxes"].tolist(), target["labels"].tolist(), crowds.tolist(), strict=True
            ):
                self.truths.append({**self._row(box, label), "iscrowd": int(crowd)})
            for box, label, score in zip(
                found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
            ):
                self.answers.append({**self._row(box, label), "score": score})

    def compute(self) -> Mapping[str, float]:
        from faster_coco_eval import COCO, COCOeval_faster

        if not self.truths:
            return {"mean_ap": 0.0, "ap50": 0.0}
        truths = COCO(
            {
                "images": [{"id": number} for number in range(1, self.images + 1)],
                "annotations": [
                    {**truth, "id": place} for place, truth in enumerate(self.truths, 1)
                ],
                "categories": [{"id": label, "name": str(label)} for label in sorted(self.labels)],
            }
        )
        evaluation = COCOeval_faster(
            truths, truths.loadRes(self.answers), "bbox", print_function=lambda *_: None
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        mean_ap, ap50 = (max(float(each), 0.0) for each in evaluation.stats[:2])
        return {"mean_ap": mean_ap, "ap50": ap50}

    def notes(self) -> list[str]:
        if not self.truths:
            return ["the test set has no boxes."]
        return [] if self.answers else ["no box is found on any test image."]

    def _row(self, box: list[float], label: int) -> dict[str, Any]:
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        self.labels.add(label)
        return {
            "image_id": self.images,
            "category_id": label,
            "bbox": [left, top, width, height],
            "area": width * height,
        }
