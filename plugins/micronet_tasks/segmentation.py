"""Segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from micronet.errors import DataError, RunError, describe_value
from micronet.options import option
from micronet.techniques import Figure, Metric, Task

if TYPE_CHECKING:
    from torch import Tensor

_MAPS = 4
"""Dimensions of [batch, classes, height, width]."""


@attrs.frozen(kw_only=True)
class Segmentation(Task):
    """Outputs are logits [batch, classes, height, width], or torchvision's {"out", "aux"}.

    A target is a mask of classes [height, width], of the size of its image; logits of another size
    are interpolated to it. The loss is cross entropy, to which "aux" adds its own.
    """

    ignore_index: int = option(255, doc="Pixels of this class count neither for loss nor metric.")
    aux_weight: float = option(0.5, ge=0, doc="Weight of the loss of torchvision's output aux.")
    class_weights: tuple[float, ...] = option(
        (), doc="Weight of each class in the loss; all alike if not given."
    )
    classes: int | None = option(
        None, ge=1, doc="Number of classes; the model's outputs tell it if not given."
    )

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (Figure("mean_iou", "mIoU"), Figure("pixel_accuracy", "Pixel acc"))

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        loss = self._cross_entropy(_logits(outputs), targets)
        if isinstance(outputs, Mapping) and "aux" in outputs:
            loss = loss + self.aux_weight * self._cross_entropy(outputs["aux"], targets)
        return loss

    def imitation(self, outputs: Any, wanted: Any, temperature: float) -> Tensor:
        """Cross entropy with the teacher's probabilities of each pixel, times temperature²."""
        from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

        one, other = _logits(outputs), _logits(wanted)
        if getattr(one, "shape", None) != getattr(other, "shape", ()):
            return super().imitation(one, other, temperature)  # which says what differs
        soft = (other / temperature).softmax(1)
        return F.cross_entropy(one / temperature, soft) * temperature**2

    def metric(self) -> Metric:
        from micronet_tasks.confusion import Confusion

        assert self.classes is not None
        return Confusion(self.classes, self.ignore_index)

    def agreement(self, outputs: Any, others: Any) -> Tensor:
        one, other = _logits(outputs), _logits(others)
        readable = one.amax(1).isfinite() & other.amax(1).isfinite()
        same = (one.argmax(1) == other.argmax(1)) & readable
        fraction: Tensor = same.double().flatten(1).mean(1)
        return fraction

    def check_target(self, target: Any, image: Tensor) -> Any:
        import torch

        mask = target if isinstance(target, torch.Tensor) else _as_tensor(target)
        if mask is None or mask.dim() != 2 or mask.is_floating_point() or mask.is_complex():  # noqa: PLR2004
            raise DataError(
                f"must give a mask [height, width] of classes' numbers, got "
                f"{describe_value(target)}"
            )
        if mask.shape != image.shape[-2:]:
            raise DataError(
                f"must give masks of the images' size, got {list(mask.shape)} for an image of "
                f"{list(image.shape[-2:])}"
            )
        mask = mask.long()
        counted = mask[mask != self.ignore_index]
        if len(counted) and int(counted.min()) < 0:
            raise DataError(f"must give classes of 0 or more, got {int(counted.min())} in a mask")
        if self.classes is not None and len(counted) and int(counted.max()) >= self.classes:
            raise DataError(
                f"must give classes below {self.classes}, the model's number of classes, or "
                f"{self.ignore_index} for pixels to ignore, got {int(counted.max())} in a mask"
            )
        return mask

    def fitted(self, outputs: Any) -> Task:
        maps = _logits(outputs)
        if getattr(maps, "ndim", None) != _MAPS:
            shape = list(maps.shape) if hasattr(maps, "shape") else describe_value(outputs)
            raise RunError(
                f"must give logits [batch, classes, height, width], alone or as 'out', got {shape}"
            )
        classes = maps.shape[1]
        if self.classes not in (None, classes):
            raise RunError(f"must give {self.classes} classes as the task says, got {classes}")
        if self.class_weights and len(self.class_weights) != classes:
            raise RunError(
                f"gives {classes} classes, and class_weights has {len(self.class_weights)}"
            )
        return attrs.evolve(self, classes=classes)

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

        weight = logits.new_tensor(self.class_weights) if self.class_weights else None
        loss: Tensor = F.cross_entropy(
            resized(logits, targets), targets, weight=weight, ignore_index=self.ignore_index
        )
        return loss


def resized(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits [batch, classes, height, width] of the size of masks [batch, height, width]."""
    from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

    size = targets.shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _logits(outputs: Any) -> Any:
    return outputs.get("out") if isinstance(outputs, Mapping) else outputs


def _as_tensor(target: Any) -> Tensor | None:
    import torch

    try:
        return torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        return None
