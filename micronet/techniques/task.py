"""The task kind: says what a model's outputs mean, so that nothing else needs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from torch import Tensor, nn


@attrs.frozen
class Figure:
    """One number that a task measures.

    Args:
        name: As in results.json, `mean_iou`.
        title: As in the table's header, `mIoU`.
        higher_is_better: Its direction.
        fraction: Whether it lies between 0 and 1, and is shown as a percentage.
    """

    name: str
    title: str
    higher_is_better: bool = True
    fraction: bool = True

    def loss(self, before: float, after: float) -> float:
        """How much worse `after` is; negative where it is better."""
        return before - after if self.higher_is_better else after - before


class Metric(ABC):
    """Collects a model's outputs batch by batch, and measures them."""

    @abstractmethod
    def update(self, outputs: Any, targets: Any) -> None:
        """Takes one batch: what a model gave, and what `Task.collate` gave, on the CPU."""

    @abstractmethod
    def compute(self) -> Mapping[str, float]:
        """A value for each of the task's figures, by name."""

    def notes(self) -> list[str]:
        """What a reader should know before believing the figures, a sentence each."""
        return []


class Task(ABC):
    """Contract of a task.

    A sample is an input, which is a tensor, and a target, which is whatever the task says. Outputs
    are what the model's forward gives for a batch, with tensors as leaves.
    """

    @property
    @abstractmethod
    def figures(self) -> tuple[Figure, ...]:
        """What the task measures, the main figure first."""

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """What training makes small: a scalar with a gradient, for one batch."""

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh metric."""

    @abstractmethod
    def agreement(self, outputs: Any, others: Any) -> Tensor:
        """How far two models give the same answer: float64 [batch], from 0 (not at all) to 1.

        Symmetric, and 1 for outputs that are equal.
        """

    @abstractmethod
    def check_target(self, target: Any, image: Tensor) -> Any:
        """A sample's target in the form that `collate` takes.

        Args:
            target: What the data set gave.
            image: The sample's input.

        Raises:
            DataError: It is none; the message goes on after "The training set", as in "must give
                a mask [height, width] of integers, got a float".
        """

    @abstractmethod
    def fitted(self, outputs: Any) -> Task:
        """The task for a model that gives such outputs for a batch of two.

        A task that depends on the model, as on its number of classes, learns it here.

        Raises:
            RunError: The task can't read them; the message goes on after the model's name, as in
                "must give logits [batch, classes], got [2]".
        """

    def training_loss(self, model: nn.Module, inputs: Tensor, targets: Any) -> Tensor:
        """The loss of one batch, for models that compute their own from the targets."""
        return self.loss(model(inputs), targets)

    def imitation(self, outputs: Any, wanted: Any, temperature: float) -> Tensor:  # noqa: ARG002 (for probabilities)
        """How far outputs are from a teacher's for the same inputs: a scalar with a gradient.

        By default the mean square of their difference, as a part of the teacher's mean square, on
        average over all tensors of floats.

        Args:
            outputs: The model's.
            wanted: The teacher's, of the same form.
            temperature: Above 0; what logits are divided by before they become probabilities.

        Raises:
            RunError: They have different forms.
        """
        import torch
        from torch.utils._pytree import tree_leaves

        from micronet.errors import RunError

        pairs = [
            [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
            for tree in (outputs, wanted)
        ]
        shapes = [[tuple(leaf.shape) for leaf in leaves] for leaves in pairs]
        if shapes[0] != shapes[1]:
            raise RunError(
                f"The model must give outputs as its teacher does, got {shapes[0]} and {shapes[1]}."
            )
        terms = [
            (one - other).pow(2).mean() / other.pow(2).mean().clamp_min(1e-12)
            for one, other in zip(*pairs, strict=True)
            if other.is_floating_point()
        ]
        if not terms:
            raise RunError("The model gives no tensors of floats that could be a teacher's.")
        return torch.stack(terms).mean()

    def collate(self, samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        """One batch of samples; by default everything is stacked."""
        from torch.utils.data import default_collate

        inputs, targets = default_collate(list(samples))
        return inputs, targets

    def first_unreadable(self, outputs: Any) -> int | None:
        """The first of a batch whose outputs give no answer; by default those with NaN or Inf."""
        import torch
        from torch.utils._pytree import tree_leaves

        places = [
            int(torch.nonzero(bad)[0])
            for leaf in tree_leaves(outputs)
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.dim()
            for bad in [~leaf.reshape(len(leaf), -1).isfinite().all(1)]
            if bad.any()
        ]
        return min(places, default=None)
