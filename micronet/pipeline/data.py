"""What a recipe's data and model give, looked at before any work."""

from __future__ import annotations

import contextlib
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from micronet.errors import DataError, RunError, blaming, describe_value
from micronet.graph.modes import evaluating
from micronet.pipeline.samples import Samples, type_of
from micronet.techniques import Task

Sets = tuple[Samples, Samples]
_LOOKED_AT = 16
_HELD_OUT = 10
"""One of so many training images is held out."""


def checked_sets(loaded: Any, name: str, task: Task) -> Sets:
    """The training and the test set, if that is what a recipe's data gave.

    Their first two and last images are looked at here, the others as they are read.

    Args:
        loaded: What `data` returned.
        name: What the recipe calls it.
        task: Says what the targets must be.

    Raises:
        DataError: It is no pair of data sets, or they can't be trained with.
    """
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:  # noqa: PLR2004
        several = isinstance(loaded, (tuple, list))
        got = f"{len(loaded)} things" if several else describe_value(loaded)
        raise DataError(f"data {name} must return two data sets, (train, test), got {got}.")
    train = Samples.of(loaded[0], f"The training set of {name}", task, may_be_bare=True)
    test = Samples.of(loaded[1], f"The test set of {name}", task)
    for samples in (train, test):
        for index in (1, len(samples) - 1):
            samples[index]
    if train.shape != test.shape:
        raise DataError(
            f"The images of {name} must all have one shape, got {list(train.shape)} for training "
            f"and {list(test.shape)} for the test."
        )
    if train.dtype != test.dtype:
        raise DataError(
            f"The images of {name} must all have one type, got {type_of(train.dtype)} for "
            f"training and {type_of(test.dtype)} for the test."
        )
    return train, test


def held_out(data: Samples, seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
    """A training set in two: nine tenths to train with, and a tenth to choose by."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, len(order) // _HELD_OUT)
    return Subset(data, sorted(order[count:])), Subset(data, sorted(order[:count]))


def look_through(data: Samples) -> None:
    """Reads some samples all over a data set.

    Where the set keeps its labels as torchvision's do, one with the highest of them is among these.

    Raises:
        DataError: One can't be trained with.
    """
    indices = {0, 1, *range(0, len(data), max(1, len(data) // _LOOKED_AT)), len(data) - 1}
    kept = getattr(data.data, "targets", None)
    if isinstance(data.data, TensorDataset) and len(data.data.tensors) > 1:
        kept = data.data.tensors[1]
    with contextlib.suppress(TypeError, ValueError, RuntimeError):  # the user's own, no labels
        indices.add(int(torch.as_tensor(kept).argmax()))
    for index in sorted(indices):
        if index < len(data):
            data[index]


def for_task(sets: Sets, task: Task) -> Sets:
    """The same sets; a target that is none of this task's is an error from now on."""
    train, test = sets
    return attrs.evolve(train, task=task), attrs.evolve(test, task=task)


@torch.no_grad()
def fitted_task(
    task: Task, model: nn.Module, name: str, example_inputs: tuple[Tensor, ...]
) -> Task:
    """Runs a model once, on a batch of the training set.

    Returns:
        The task for what the model gives.

    Raises:
        RunError: It raises something, or gives what the task can't read.
    """
    (images,) = example_inputs
    odd = "" if images.dtype == torch.float32 else f" of {type_of(images.dtype)}"
    with (
        evaluating(model),
        blaming(f"model {name} fails on images{odd} {list(images.shape)}", RunError),
    ):
        outputs = model(images)
    try:
        return task.fitted(outputs)
    except RunError as error:
        raise RunError(f"model {name} {error}.") from error
