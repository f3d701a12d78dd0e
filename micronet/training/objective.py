"""What a training makes small: the task's loss, the user's own, a teacher's, or a mixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from torch import Tensor, nn

from micronet.errors import DataError, RunError, blaming, describe_value
from micronet.techniques import Task
from micronet.training.distillation import Distillation

OwnLoss = Callable[..., Any]
"""Of a model's outputs and a batch of targets; gives a scalar."""


@attrs.frozen(kw_only=True)
class Objective:
    """The loss of a batch.

    Args:
        task: What the model is for.
        own: In the place of the task's loss.
        distillation: The teacher's part.
        weight: Of the teacher's part, above 0; with 1, targets are not read.
    """

    task: Task
    own: OwnLoss | None = None
    distillation: Distillation | None = None
    weight: float = 1.0

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Any) -> Tensor:
        """The loss.

        Raises:
            DataError: There are no targets, and they are needed.
            RunError: A loss can't be taken.
        """
        labelled = self.distillation is None or self.weight < 1
        if labelled and targets is None:
            raise DataError(
                "The training set gives images without targets; only a teacher with weight 1 can "
                "do without them."
            )
        if self.distillation is None:
            if self.own is None:
                return self.task.training_loss(model, inputs, targets)
            return self._own(model(inputs), targets)
        outputs, loss = self.distillation(model, inputs)
        if self.weight == 1:
            return loss
        hard = (self.task.loss if self.own is None else self._own)(outputs, targets)
        return self.weight * loss + (1 - self.weight) * hard

    def _own(self, outputs: Any, targets: Any) -> Tensor:
        assert self.own is not None
        with blaming("The loss fails", RunError):
            loss = self.own(outputs, targets)
        if not isinstance(loss, Tensor) or loss.shape:
            raise RunError(f"The loss must give a scalar tensor, got {describe_value(loss)}.")
        return loss
