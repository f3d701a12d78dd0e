"""What users rely on in a task."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from micronet.errors import DataError
from micronet.options import build
from micronet.techniques import Task
from micronet.testing.contract import Case, Contracts, shared_contracts

_CLOSE = 1e-6


@attrs.define
class TaskCase(Case):
    """A task under examination.

    Args:
        samples: Two or more of (image, target), as a data set gives them.
        outputs: What a model could give for all of them as one batch.
    """

    technique: Task
    samples: Sequence[tuple[Tensor, Any]]
    outputs: Any
    kind: ClassVar[str] = "task"

    @property
    def task(self) -> Task:
        """The task for such outputs."""
        return self.technique.fitted(self.outputs)

    def batch(self, places: slice = slice(None)) -> tuple[Any, Any]:
        """Outputs and targets of some samples."""
        task = self.task
        checked = [(image, task.check_target(target, image)) for image, target in self.samples]
        _, targets = task.collate(checked[places])
        return self.part(places), targets

    def part(self, places: slice) -> Any:
        """The outputs of some samples."""
        if _is_listed(self.outputs):
            return self.outputs[places]
        return tree_map_only(Tensor, lambda leaf: leaf[places], self.outputs)


TASK: Contracts[TaskCase] = Contracts(*shared_contracts())


def check_task(
    task: Task,
    samples: Sequence[tuple[Tensor, Any]],
    outputs: Any,
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    """Verifies every contract of tasks.

    Args:
        task: An instance, with the options to examine.
        samples: Two or more of (image, target), as a data set gives them.
        outputs: What a model could give for all of them as one batch; not all right.
        expected_failures: Names of contracts that it is known to break, and why.

    Raises:
        ContractError: What is broken, what was seen and what to do, for all contracts at once.
    """
    TASK.check(TaskCase(task, samples, outputs), expected_failures or {})


def _trains(case: TaskCase) -> bool:
    return not _is_listed(case.outputs)


@TASK.contract("Compute the loss of the outputs with torch's functions alone.", _trains)
def has_a_loss_with_a_gradient(case: TaskCase) -> str | None:
    """The loss of a batch is a finite scalar, and moves some output."""
    outputs, targets = case.batch()
    leaves = tree_map(_grown, outputs)
    loss = case.task.loss(leaves, targets)
    if loss.dim() != 0 or not bool(loss.isfinite()):
        return f"the loss is {loss}."
    loss.backward()  # type: ignore[no-untyped-call]
    grown = [leaf.grad for leaf in tree_leaves(leaves) if isinstance(leaf, Tensor)]
    moved = [grad for grad in grown if grad is not None and bool((grad != 0).any())]
    return None if moved else "no output has a gradient."


@TASK.contract("Compare outputs with the teacher's so that its own come closest.", _trains)
def imitates_a_teacher(case: TaskCase) -> str | None:
    """Imitation is a finite scalar, moves outputs, and is smallest for the teacher's own."""
    task, wanted = case.task, case.outputs
    own = task.imitation(wanted, wanted, 2.0)
    leaves = tree_map(_grown, tree_map_only(Tensor, _turned, wanted))
    loss = task.imitation(leaves, wanted, 2.0)
    if loss.dim() != 0 or not bool(loss.isfinite() & own.isfinite()):
        return f"it is {loss}, and {own} for the teacher's own."
    if not bool(own < loss):
        return f"it is {own} for the teacher's own outputs, and {loss} for others."
    loss.backward()  # type: ignore[no-untyped-call]
    grown = [leaf.grad for leaf in tree_leaves(leaves) if isinstance(leaf, Tensor)]
    moved = [grad for grad in grown if grad is not None and bool((grad != 0).any())]
    return None if moved else "no output has a gradient."


@TASK.contract("Give each figure of `figures`, in its range, and no other.")
def measures_its_figures(case: TaskCase) -> str | None:
    """`compute` gives a finite number for each figure; a fraction lies between 0 and 1."""
    task, metric = case.task, case.task.metric()
    metric.update(*case.batch())
    values = metric.compute()
    names = [figure.name for figure in task.figures]
    if sorted(values) != sorted(names) or not names:
        return f"the figures are {names}, and it gave {sorted(values)}."
    for figure in task.figures:
        value = values[figure.name]
        if not math.isfinite(value) or (figure.fraction and not 0 <= value <= 1):
            return f"{figure.name} is {value}."
    return None


@TASK.contract("Add up in `update`, and divide in `compute`.")
def adds_batches_up(case: TaskCase) -> str | None:
    """The figures of two batches are those of both as one."""
    whole, parts = case.task.metric(), case.task.metric()
    whole.update(*case.batch())
    for places in (slice(0, 1), slice(1, None)):
        parts.update(*case.batch(places))
    one, other = whole.compute(), parts.compute()
    for name, value in one.items():
        if abs(other[name] - value) > _CLOSE * max(1, abs(value)):
            return f"{name} is {value} in one batch, and {other[name]} in two."
    return None


@TASK.contract("Compare the answers, not the numbers, from both sides alike.")
def agrees_with_itself(case: TaskCase) -> str | None:
    """The agreement of each image is 1 with itself, and symmetric, and between 0 and 1."""
    task, outputs = case.task, case.outputs
    turned = case.outputs[::-1] if _is_listed(outputs) else tree_map_only(Tensor, _turned, outputs)
    same = task.agreement(outputs, outputs)
    if same.shape != (len(case.samples),) or not bool((same == 1).all()):
        return f"of {len(case.samples)} images with themselves it is {same.tolist()}."
    one, other = task.agreement(outputs, turned), task.agreement(turned, outputs)
    if not torch.allclose(one, other) or bool(((one < 0) | (one > 1)).any()):
        return f"it is {one.tolist()} from one side, {other.tolist()} from the other."
    return None


@TASK.contract("Raise a DataError that says what a target must be.")
def refuses_what_is_no_target(case: TaskCase) -> str | None:
    """A text, and nothing, are refused as targets with a DataError."""
    image, _ = case.samples[0]
    for nonsense in ("cat", None, object()):
        try:
            case.task.check_target(nonsense, image)
        except DataError:
            continue
        return f"{nonsense!r} was taken."
    return None


@TASK.contract("Return from `fitted` an instance whose options say all that it learned.")
def keeps_what_it_learned(case: TaskCase) -> str | None:
    """A fitted task's options, as JSON, build the same task; fitting it again changes nothing."""
    fitted: Any = case.task
    again = build(type(fitted), json.loads(json.dumps(attrs.asdict(fitted))))
    if again != fitted:
        return f"{fitted} came back as {again}."
    twice = fitted.fitted(case.outputs)
    return None if twice == fitted else f"{fitted} became {twice}."


@TASK.contract("Look for NaN and Inf in `first_unreadable`, image by image.")
def finds_outputs_that_are_no_numbers(case: TaskCase) -> str | None:
    """NaN in the outputs for the second image is found there, and nowhere else."""
    if case.task.first_unreadable(case.outputs) is not None:
        return "it finds some in outputs that have none."
    spoilt = tree_map_only(Tensor, Tensor.clone, case.outputs)
    second = tree_leaves(spoilt[1]) if _is_listed(spoilt) else tree_leaves(spoilt)
    for leaf in second:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            leaf[slice(None) if _is_listed(spoilt) else 1] = torch.nan
    place = case.task.first_unreadable(spoilt)
    return None if place == 1 else f"it found {place}."


def _is_listed(outputs: Any) -> bool:
    """Whether outputs are a list with an entry for each image."""
    return isinstance(outputs, list)


def _grown(leaf: Any) -> Any:
    floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return leaf.detach().clone().requires_grad_() if floating else leaf


def _turned(leaf: Tensor) -> Tensor:
    return leaf.flip(0)
