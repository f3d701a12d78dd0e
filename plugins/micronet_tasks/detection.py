"""Detection: boxes with classes and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from micronet.errors import DataError, RunError, describe_value
from micronet.options import option
from micronet.techniques import Figure, Metric, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet_tasks.boxes import Boxes

_BOXES = {"boxes", "scores", "labels"}


@attrs.frozen(kw_only=True)
class Detection(Task):
    """Outputs are torchvision's list of {"boxes", "scores", "labels"}, or anchor-free maps.

    Maps are a tuple of [batch, 4 + classes, height, width], one for each stride, as
    `micronet_tasks.anchor_free` describes them. They are decoded and suppressed here, outside the
    engine.

    A target is {"boxes": [boxes, 4], "labels": [boxes]}: left, top, right and bottom in pixels, and
    the number of a class, of which 0 is the background as torchvision counts them.

    A model that gives torchvision's list computes its own losses in training: called with images
    and targets, it gives a dict of them. Heads of another kind take a class of their own that
    derives from this one, with `decoded` and `loss`.
    """

    head: Literal["boxes", "maps"] | None = option(
        None, doc="What the model gives; its outputs tell it if not given."
    )
    strides: tuple[int, ...] = option((8, 16, 32), doc="Pixels of a cell of each map.")
    min_score: float = option(0.05, ge=0, le=1, doc="Boxes with a lower score are dropped.")
    max_overlap: float = option(
        0.6, gt=0, le=1, doc="Of boxes of one class that overlap more, the best alone stays."
    )
    max_boxes: int = option(100, ge=1, doc="The best boxes of an image that stay.")
    agreement_score: float = option(
        0.3, gt=0, le=1, doc="Boxes from this score on must be found by both of two models."
    )
    classes: int | None = option(
        None, ge=1, doc="Number of classes, the background among them; maps tell it if not given."
    )

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (Figure("mean_ap", "mAP"), Figure("ap50", "AP50"))

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        from micronet_tasks.anchor_free import detection_loss

        return detection_loss(outputs, targets, self.strides)

    def training_loss(self, model: nn.Module, inputs: Tensor, targets: Any) -> Tensor:
        if self.head != "boxes":
            return self.loss(model(inputs), targets)
        losses = model(list(inputs), targets)
        if not isinstance(losses, Mapping):
            raise RunError(
                f"The model must give a dict of losses for images and targets in training, got "
                f"{describe_value(losses)}."
            )
        total: Tensor = sum(losses.values())  # type: ignore[assignment]
        return total

    def decoded(self, outputs: Any) -> list[Boxes]:
        """The boxes of each image, the best first."""
        from micronet_tasks.boxes import Boxes

        if self.head != "maps":
            return [Boxes.of(each, self.min_score, self.max_boxes) for each in outputs]
        from micronet_tasks.anchor_free import decode

        found = decode(
            outputs,
            self.strides,
            score=self.min_score,
            iou=self.max_overlap,
            most=self.max_boxes,
        )
        return [Boxes(each["boxes"], each["scores"], each["labels"]) for each in found]

    def metric(self) -> Metric:
        from micronet_tasks.boxes import CocoPrecision

        return CocoPrecision(self.decoded)

    def agreement(self, outputs: Any, others: Any) -> Tensor:
        from micronet_tasks.boxes import agreement

        return agreement(self.decoded(outputs), self.decoded(others), self.agreement_score)

    def check_target(self, target: Any, image: Tensor) -> Any:
        import torch

        if not isinstance(target, Mapping) or not {"boxes", "labels"} <= target.keys():
            raise DataError(
                f"must give a dict of boxes and labels as the target, got {describe_value(target)}"
            )
        try:
            boxes = torch.as_tensor(target["boxes"], dtype=torch.float32).reshape(-1, 4)
            labels = torch.as_tensor(target["labels"])
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"must give boxes [boxes, 4] and labels [boxes], got "
                f"{describe_value(target['boxes'])} and {describe_value(target['labels'])}"
            ) from error
        labels = labels.long() if not len(labels) else labels
        if labels.is_floating_point() or labels.shape != boxes.shape[:1]:
            raise DataError(
                f"must give an integer label for each box, got {describe_value(labels)} for "
                f"{len(boxes)} boxes"
            )
        self._check_boxes(boxes, labels, image)
        return {**target, "boxes": boxes, "labels": labels.long()}

    def _check_boxes(self, boxes: Tensor, labels: Tensor, image: Tensor) -> None:
        if not len(boxes):
            return
        if not bool(boxes.isfinite().all()) or bool((boxes[:, 2:] <= boxes[:, :2]).any()):
            raise DataError(
                "must give boxes as left, top, right and bottom with right > left and bottom > "
                "top, got one that is empty or not finite"
            )
        height, width = image.shape[-2:]
        if bool((boxes[:, 0::2] > width + 1).any()) or bool((boxes[:, 1::2] > height + 1).any()):
            raise DataError(
                f"must give boxes in pixels of the image, {width} wide and {height} high, got one "
                f"beyond it"
            )
        lowest = 1 if self.head == "boxes" else 0
        if int(labels.min()) < lowest:
            raise DataError(f"must give labels of {lowest} or more, got {int(labels.min())}")
        if self.classes is not None and int(labels.max()) >= self.classes:
            raise DataError(
                f"must give labels below {self.classes}, the model's number of classes, got "
                f"{int(labels.max())}"
            )

    def fitted(self, outputs: Any) -> Task:
        if isinstance(outputs, (list, tuple)) and all(isinstance(e, Mapping) for e in outputs):
            if not all(each.keys() >= _BOXES for each in outputs):
                raise RunError("must give a dict of boxes, scores and labels for each image")
            return attrs.evolve(self, head="boxes")
        maps = list(outputs) if isinstance(outputs, (list, tuple)) else []
        if not maps or any(getattr(each, "ndim", None) != 4 for each in maps):  # noqa: PLR2004
            raise RunError(
                f"must give torchvision's list of boxes, scores and labels, or a tuple of maps "
                f"[batch, 4 + classes, height, width], got {describe_value(outputs)}"
            )
        channels = {each.shape[1] for each in maps}
        if len(maps) != len(self.strides) or len(channels) > 1 or min(channels) <= 4:  # noqa: PLR2004
            raise RunError(
                f"must give a map of 4 + classes channels for each of the strides "
                f"{list(self.strides)}, got {[list(each.shape) for each in maps]}"
            )
        return attrs.evolve(self, head="maps", classes=channels.pop() - 4)

    def collate(self, samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        import torch

        return torch.stack([image for image, _ in samples]), [target for _, target in samples]

    def first_unreadable(self, outputs: Any) -> int | None:
        if self.head == "maps":
            return super().first_unreadable(outputs)
        for place, each in enumerate(outputs):
            if not bool(each["boxes"].isfinite().all() & each["scores"].isfinite().all()):
                return place
        return None
