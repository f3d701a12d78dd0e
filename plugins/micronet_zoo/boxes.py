"""What the maps of `yolo_small` mean: boxes, and a loss.

A map of stride s is [batch, 4 + classes, h, w]. Its cell (row, column) has its centre at the pixel
((column + 0.5) s, (row + 0.5) s). The first four channels give the distances from there to the
left, top, right and bottom side of a box, softplus(channel) each, in units of s; the others are
the logits of the labels 0, 1, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from micronet_zoo.yolo import SIDES, STRIDES

Target = Mapping[str, Tensor]
"""`{"boxes": float32 [n, 4], "labels": int64 [n]}`, x1, y1, x2, y2 in pixels."""

_CANDIDATES = 10
"""Cells at most that learn a box (Feng et al. 2021, as YOLOv8 has them)."""
_SCORE_POWER, _IOU_POWER = 0.5, 6.0
_BOX_WEIGHT = 3.0
_AT_ONCE = 1000
"""Boxes of an image that enter the suppression, the most probable ones."""


def decode(
    outputs: Sequence[Tensor],
    *,
    score: float = 0.05,
    iou: float = 0.6,
    most: int = 100,
) -> list[dict[str, Tensor]]:
    """The detections of each image, the most probable first.

    Args:
        outputs: The maps of a batch, a stride each.
        score: Probability that a detection exceeds.
        iou: Overlap with a more probable box of its label beyond which a box is suppressed.
        most: Detections of an image.

    Returns:
        For each image `{"boxes": float32 [n, 4], "scores": float32 [n], "labels": int64 [n]}`;
        x1, y1, x2, y2 in pixels, within the image.
    """
    from torchvision.ops import batched_nms, clip_boxes_to_image

    predicted = _Predicted.of(outputs)
    height, width = (side * STRIDES[0] for side in outputs[0].shape[-2:])
    detections = []
    for boxes, logits in zip(predicted.boxes, predicted.logits, strict=True):
        scores = logits.sigmoid()
        cells, labels = (scores > score).nonzero(as_tuple=True)
        scores, order = scores[cells, labels].sort(descending=True, stable=True)
        cells, labels, scores = cells[order][:_AT_ONCE], labels[order][:_AT_ONCE], scores[:_AT_ONCE]
        found = clip_boxes_to_image(boxes[cells], (height, width))
        kept = batched_nms(found, scores, labels, iou)[:most]
        detections.append({"boxes": found[kept], "scores": scores[kept], "labels": labels[kept]})
    return detections


def detection_loss(outputs: Sequence[Tensor], targets: Sequence[Target]) -> Tensor:
    """Binary cross-entropy of the labels and complete IoU of the boxes (Zheng et al. 2020).

    Which cells learn which box is decided by task-aligned assignment (TOOD, Feng et al. 2021).

    Args:
        outputs: The maps of a batch, a stride each.
        targets: Of each image, with no boxes at all or some.

    Returns:
        A scalar.
    """
    from torchvision.ops import complete_box_iou_loss

    predicted = _Predicted.of(outputs)
    wanted = torch.zeros_like(predicted.logits)
    pairs = []
    for image, target in enumerate(targets):
        cells, objects, quality = _assign(predicted, image, target)
        wanted[image, cells, target["labels"][objects]] = quality
        pairs.append((predicted.boxes[image, cells], target["boxes"][objects], quality))
    boxes, true, quality = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    total = quality.sum().clamp_min(1)
    labels = binary_cross_entropy_with_logits(predicted.logits, wanted, reduction="sum")
    overlap = (complete_box_iou_loss(boxes, true) * quality).sum()
    loss: Tensor = (labels + _BOX_WEIGHT * overlap) / total
    return loss


@attrs.frozen(eq=False)
class _Predicted:
    """The cells of all strides in a row.

    Args:
        boxes: float32 [batch, cells, 4], x1, y1, x2, y2 in pixels.
        logits: float32 [batch, cells, classes].
        centres: float32 [cells, 2], x, y in pixels.
        strides: float32 [cells, 1], in pixels.
    """

    boxes: Tensor
    logits: Tensor
    centres: Tensor
    strides: Tensor

    @classmethod
    def of(cls, outputs: Sequence[Tensor]) -> _Predicted:
        rows = torch.cat([output.flatten(2) for output in outputs], 2).transpose(1, 2).float()
        sides, logits = rows[:, :, :SIDES], rows[:, :, SIDES:]
        centres, strides = _cells([output.shape[-2:] for output in outputs])
        centres, strides = centres.to(rows), strides.to(rows)
        before, after = (softplus(sides) * strides).chunk(2, 2)
        return cls(torch.cat([centres - before, centres + after], 2), logits, centres, strides)


def _cells(shapes: Sequence[torch.Size]) -> tuple[Tensor, Tensor]:
    centres, strides = [], []
    for (height, width), stride in zip(shapes, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append((torch.stack([x, y], 2).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((height * width, 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)


@torch.no_grad()
def _assign(predicted: _Predicted, image: int, target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """Which cells of an image learn which of its objects, and the score that each should give.

    An object is learnt by the cells inside its box that fit it best already, by
    score^0.5 IoU^6. A cell inside several boxes learns the one that it overlaps most.
    """
    from torchvision.ops import box_iou

    boxes, labels = target["boxes"], target["labels"]
    if not len(boxes):
        none = labels.new_zeros(0)
        return none, none, boxes.new_zeros(0)
    ious = box_iou(boxes, predicted.boxes[image])
    scores = predicted.logits[image].sigmoid()[:, labels].T
    fit = scores**_SCORE_POWER * ious**_IOU_POWER
    fit = torch.where(_inside(predicted, boxes), fit + torch.finfo(fit.dtype).tiny, 0)
    best = fit.topk(min(_CANDIDATES, fit.shape[1]), 1)
    chosen = torch.zeros_like(fit).scatter_(1, best.indices, best.values) > 0
    owner = torch.where(chosen, ious, -1).argmax(0)
    cells = chosen.any(0).nonzero().flatten()
    objects = owner[cells]
    taken = torch.zeros_like(fit)
    taken[objects, cells] = fit[objects, cells]
    scale = (ious * (taken > 0)).amax(1) / taken.amax(1).clamp_min(torch.finfo(fit.dtype).tiny)
    return cells, objects, taken[objects, cells] * scale[objects]


def _inside(predicted: _Predicted, boxes: Tensor) -> Tensor:
    """Whether a cell's centre is in a box, taken as one stride wide and high at least."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = ((boxes[:, 2:] - boxes[:, :2]) / 2)[:, None]
    distance = (predicted.centres - centre[:, None]).abs()
    return (distance < reach.maximum(predicted.strides[None] / 2)).all(2)
