"""Classification: one class for each image, or several."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Literal

import attrs

from micronet.errors import DataError, RunError, describe_value
from micronet.options import option
from micronet.techniques import Figure, Metric, Task

if TYPE_CHECKING:
    from torch import Tensor

_TOP = 5


@attrs.frozen(kw_only=True)
class Classification(Task):
    """Outputs are logits [batch, classes].

    With one label per image a target is a class's number, the loss is cross entropy, and the answer
    is the class of the highest logit. With several a target is a vector of zeros and ones
    [classes], the loss is binary cross entropy, and the answer is every class whose logit is above
    zero.
    """

    labels: Literal["one", "several"] = option("one", doc="How many classes an image may have.")
    label_smoothing: float = option(
        0.0, ge=0, le=1, doc="What each class gets of the target's probability, in all."
    )
    class_weights: tuple[float, ...] = option(
        (), doc="Weight of each class in the loss; all alike if not given."
    )
    classes: int | None = option(
        None, ge=1, doc="Number of classes; the model's outputs tell it if not given."
    )

    @property
    def figures(self) -> tuple[Figure, ...]:
        if self.labels == "several":
            return (Figure("mean_ap", "mAP"),)
        accuracy = Figure("accuracy", "Acc")
        if self.classes is None or self.classes <= _TOP:
            return (accuracy,)
        return (accuracy, Figure("top5", "Top-5"))

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        from torch import Tensor
        from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

        if not isinstance(outputs, Tensor):
            raise RunError(
                f"The model must give logits [batch, classes] in training, got "
                f"{describe_value(outputs)}."
            )
        weight = outputs.new_tensor(self.class_weights) if self.class_weights else None
        if self.labels == "one":
            return F.cross_entropy(
                outputs, targets.long(), weight=weight, label_smoothing=self.label_smoothing
            )
        smooth = targets.to(outputs.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs, smooth, weight=weight)

    def imitation(self, outputs: Any, wanted: Any, temperature: float) -> Tensor:
        """Cross entropy with the teacher's probabilities, times the temperature's square.

        After Hinton et al., "Distilling the Knowledge in a Neural Network" (2015).
        """
        from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

        if getattr(outputs, "shape", None) != getattr(wanted, "shape", ()):
            return super().imitation(outputs, wanted, temperature)  # which says what differs
        if self.labels == "several":
            soft = (wanted / temperature).sigmoid()
            loss = F.binary_cross_entropy_with_logits(outputs / temperature, soft)
        else:
            loss = F.cross_entropy(outputs / temperature, (wanted / temperature).softmax(1))
        return loss * temperature**2

    def metric(self) -> Metric:
        if self.labels == "several":
            from micronet_tasks.ranking import AveragePrecision

            return AveragePrecision()
        from micronet_tasks.accuracy import Accuracy

        return Accuracy(top=_TOP if len(self.figures) > 1 else None)

    def agreement(self, outputs: Any, others: Any) -> Tensor:
        one: Tensor = outputs
        other: Tensor = others
        if self.labels == "several":
            return ((one > 0) == (other > 0)).double().mean(1)
        readable = one.amax(1).isfinite() & other.amax(1).isfinite()
        return ((one.argmax(1) == other.argmax(1)) & readable).double()

    def check_target(self, target: Any, image: Tensor) -> Any:  # noqa: ARG002 (part of the contract)
        if self.labels == "several":
            return self._vector(target)
        number = _class_number(target)
        if number is None:
            raise DataError(
                f"must give a class's number, 0 or more, as the label, got {describe_value(target)}"
            )
        if self.classes is not None and number >= self.classes:
            raise DataError(
                f"must give labels below {self.classes}, the model's number of classes, got "
                f"{number}"
            )
        return number

    def fitted(self, outputs: Any) -> Task:
        if getattr(outputs, "ndim", None) != 2:  # noqa: PLR2004
            shape = list(outputs.shape) if hasattr(outputs, "shape") else describe_value(outputs)
            raise RunError(f"must give logits [batch, classes], got {shape}")
        classes = outputs.shape[1]
        if self.classes not in (None, classes):
            raise RunError(f"must give {self.classes} classes as the task says, got {classes}")
        if self.class_weights and len(self.class_weights) != classes:
            raise RunError(
                f"gives {classes} classes, and class_weights has {len(self.class_weights)}"
            )
        return attrs.evolve(self, classes=classes)

    def first_unreadable(self, outputs: Any) -> int | None:
        """The first image without a highest logit: a model may rule classes out by -inf."""
        if self.labels == "several":
            return super().first_unreadable(outputs)
        places = (~outputs.amax(1).isfinite()).nonzero()
        return int(places[0]) if len(places) else None

    def _vector(self, target: Any) -> Tensor:
        import torch

        try:
            vector = torch.as_tensor(target)
        except (TypeError, ValueError, RuntimeError):
            vector = torch.empty(0, 0)
        if vector.dim() != 1 or not bool(((vector == 0) | (vector == 1)).all()):
            raise DataError(
                f"must give a vector of zeros and ones [classes] as the target, got "
                f"{describe_value(target)}"
            )
        if self.classes is not None and len(vector) != self.classes:
            raise DataError(
                f"must give targets of {self.classes} classes, as the model has, got {len(vector)}"
            )
        return vector.float()


def _class_number(target: Any) -> int | None:
    """A label as a number of 0 or more, unless it is something else."""
    if getattr(target, "ndim", 0):
        return None
    if hasattr(target, "item"):
        target = target.item()
    try:
        number = -1 if isinstance(target, bool) else operator.index(target)
    except TypeError:
        return None
    return number if number >= 0 else None
