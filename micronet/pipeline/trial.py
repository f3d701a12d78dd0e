"""What a recipe's steps ask of its first model, tried on that model before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from micronet.errors import MicronetError, RunError, blaming, describe_error, describe_value
from micronet.graph.modes import evaluating
from micronet.pipeline.context import start_model
from micronet.recipe import FLOAT, Calibrate, Prune, Quantize, Train, float_index
from micronet.recipe.plain_yaml import Key
from micronet.recipe.resolution import Resolved
from micronet.techniques import Task
from micronet.training.batch_norms import tracking_batch_norms
from micronet.training.objective import Objective

Fault = tuple[Key, str]
"""The recipe's key that a fault stands at, and what it is."""


def faults_of_model(
    resolved: Resolved, task: Task, samples: Sequence[tuple[Tensor, Any]] | None
) -> Iterator[Fault]:
    """What a run would fail at, or do in vain, only after work that would be lost.

    Args:
        resolved: The recipe.
        task: What the model is for.
        samples: Two or more of the training set, on the CPU; `None` if there are none yet: then no
            training step is tried.
    """
    model = _fresh(resolved)
    yield from _faults_of_steps(resolved, model)
    if samples is None:
        return
    images = torch.stack([image for image, _ in samples])
    yield from _faults_of_teachers(resolved, task, model, images)
    if samples[0][1] is None:
        yield from _faults_without_targets(resolved)
    elif any(isinstance(step, Train) for step in resolved.recipe.steps):
        try:
            with blaming(f"model {resolved.recipe.model.name} fails in a training step", RunError):
                own = next((f for (_, o), f in resolved.callables.items() if o == "loss"), None)
                objective = Objective(task=task, own=own and own.function)
                fault = _lost_state(resolved, objective, model, task.collate(samples))
        except MicronetError as error:
            fault = str(error)
        if fault is not None:
            yield ("model",), fault


def _faults_of_teachers(
    resolved: Resolved, task: Task, model: nn.Module, images: Tensor
) -> Iterator[Fault]:
    """The user's own teachers that can't teach such a model."""
    for (index, option), own in resolved.callables.items():
        step = resolved.recipe.steps[index]
        if option != "teacher" or not isinstance(step, Train):
            continue
        try:
            teacher = own()
            if not isinstance(teacher, nn.Module):
                told = f"{own.name} must return a torch.nn.Module, got {describe_value(teacher)}."
                raise RunError(told)
            with blaming(f"{own.name} fails on images {list(images.shape)}", RunError):
                wanted = _outputs(teacher, images)
            task.imitation(_outputs(model, images), wanted, step.temperature)
        except MicronetError as error:
            yield ("steps", index, step.key, option), str(error)


_NO_TARGETS = (
    "the training set gives images without targets; only a teacher with weight: 1 can do without "
    "them."
)


_NOTHING_TO_CHOOSE_BY = (
    "the training set gives images without targets, so held-out images can choose no epoch; leave "
    "keep and patience out."
)


def _faults_without_targets(resolved: Resolved) -> Iterator[Fault]:
    for index, step in enumerate(resolved.recipe.steps):
        if isinstance(step, Train) and (step.teacher is None or step.weight < 1):
            yield ("steps", index, step.key), _NO_TARGETS
        elif isinstance(step, Train) and step.chooses:
            yield ("steps", index, step.key), _NOTHING_TO_CHOOSE_BY


def _fresh(resolved: Resolved) -> nn.Module:
    """The first model, as every step of a run makes it again."""
    set_seed(resolved.recipe.seed)
    return start_model(resolved)


def _faults_of_steps(resolved: Resolved, model: nn.Module) -> Iterator[Fault]:
    """Steps before any quantizer that have nothing to work on."""
    steps, name = resolved.recipe.steps, resolved.recipe.model.name
    untrained = float_index(steps) < 0 and resolved.starts_at_random
    frozen = not any(parameter.requires_grad for parameter in model.parameters())
    for index, step in enumerate(steps):
        key: Key = ("steps", index, step.key)
        if isinstance(step, Quantize):
            return
        if isinstance(step, Train) and step.teacher == FLOAT and untrained:
            told = (
                "the float model has random weights, so it can't be a teacher; train it first, or "
                "name its weights."
            )
            yield (*key, "teacher"), told
        if isinstance(step, Train) and frozen:
            yield key, f"model {name} has no parameter that requires a gradient, so none to train."
        elif isinstance(step, Train) and step.sparsity is not None:
            later = zip(steps[index:], resolved.techniques[index:], strict=True)
            pruner = next(technique for after, technique in later if isinstance(after, Prune))
            reason = _why_no_sparsity(model, pruner, step.sparsity)
            if reason is not None:
                yield (*key, "sparsity"), f"{reason} Leave sparsity out."
        elif isinstance(step, Calibrate) and not tracking_batch_norms(model):
            yield (
                key,
                f"calibrate has nothing to do: model {name} has no quantizer, and no batch norm.",
            )


def _why_no_sparsity(model: nn.Module, pruner: Any, strength: float) -> str | None:
    """Why a pruner's sparsity term would change nothing, `None` if it changes some gradient."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    try:
        pruner.regularize(model, strength)
        if any(p.grad is not None and bool(p.grad.any()) for p in trained):
            return None
    except MicronetError as error:
        return str(error)
    except Exception as error:  # a plugin may raise anything
        return f"Its sparsity term fails: {describe_error(error)}."
    finally:
        model.zero_grad()
    return (
        "sparsity would change nothing: the model has no batch norm with a gamma to train, which "
        "the term of this pruner works on."
    )


def _lost_state(
    resolved: Resolved, objective: Objective, model: nn.Module, batch: tuple[Tensor, Any]
) -> str | None:
    """What a training step changes in a model that its state_dict does not hold.

    Files keep the state_dict, so the next step of a run would begin without it.
    """
    again, name, images = _fresh(resolved), resolved.recipe.model.name, batch[0]
    _outputs(model, images), _outputs(again, images)  # what a model makes at its first call
    loss: Any = _training_loss(objective, model, batch)
    if loss.requires_grad:
        loss.backward()
    again.load_state_dict(model.state_dict())
    kept = again.state_dict().keys()
    buffers = dict(again.named_buffers())
    for key, buffer in model.named_buffers():
        if key not in kept and not _same(buffer, buffers.get(key), exactly=True):
            return (
                f"model {name} changes its buffer {key!r} in training, which is not in its "
                f"state_dict, so that no file keeps it. Register it with persistent=True."
            )
    given = [
        (_outputs(each, images), _training_loss(objective, each, batch)) for each in (model, again)
    ]
    for left, right in zip(*given, strict=True):
        if not _same(left, right):
            return (
                f"model {name} keeps something that training changes outside of its state_dict: "
                f"a new one with the same state_dict gives other outputs. Register it as a buffer."
            )
    return None


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> Any:
    set_seed(0)
    with evaluating(model):
        return model(images)


def _training_loss(objective: Objective, model: nn.Module, batch: tuple[Tensor, Any]) -> Tensor:
    set_seed(0)
    return objective(model.train(), *batch)


def _same(left: Any, right: Any, *, exactly: bool = False) -> bool:
    """Whether all tensors are equal, outputs but for what the order of additions may change."""
    ones, others = (
        [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)] for tree in (left, right)
    )
    return len(ones) == len(others) and all(
        _equal(*pair, exactly=exactly) for pair in zip(ones, others, strict=True)
    )


def _equal(left: Tensor, right: Tensor, *, exactly: bool) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    rtol, atol = (0.0, 0.0) if exactly else (1e-5, 1e-6)
    return torch.allclose(left, right, rtol=rtol, atol=atol, equal_nan=True)
