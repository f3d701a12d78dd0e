"""What a recipe's data and model give, looked at before any work."""

from __future__ import annotations

import contextlib
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from micronet.errors import DataError, RunError, blaming
from micronet.graph.modes import evaluating
from micronet.pipeline.samples import Samples, kind_of, type_of

Sets = tuple[Samples, Samples]
_LOOKED_AT = 16


def checked_sets(loaded: Any, name: str) -> Sets:
    """The training and the test set, if that is what a recipe's data gave.

    Their first two and last images are looked at here, the others as they are read.

    Args:
        loaded: What `data` returned.
        name: What the recipe calls it.

    Raises:
        DataError: It is no pair of data sets, or they can't be trained with.
    """
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:  # noqa: PLR2004
        found = f"{len(loaded)} things" if isinstance(loaded, (tuple, list)) else kind_of(loaded)
        raise DataError(f"data {name} must return two data sets, (train, test), got {found}.")
    train = Samples.of(loaded[0], f"The training set of {name}")
    test = Samples.of(loaded[1], f"The test set of {name}")
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


def highest_label(data: Samples) -> int:
    """The highest label among some images all over a data set.

    Where the set keeps its labels as torchvision's do, one with the highest of them is among these.

    Raises:
        DataError: It can't be trained with.
    """
    indices = {*range(0, len(data), max(1, len(data) // _LOOKED_AT)), len(data) - 1}
    kept = getattr(data.data, "targets", None)
    if isinstance(data.data, TensorDataset) and len(data.data.tensors) > 1:
        kept = data.data.tensors[1]
    with contextlib.suppress(TypeError, ValueError, RuntimeError):  # the user's own, no labels
        indices.add(int(torch.as_tensor(kept).argmax()))
    return max(data[index][1] for index in indices if index < len(data))


def with_classes(sets: Sets, classes: int) -> Sets:
    """The same sets; a label that is none of the model's classes is an error from now on."""
    train, test = sets
    return attrs.evolve(train, classes=classes), attrs.evolve(test, classes=classes)


@torch.no_grad()
def check_model(model: nn.Module, name: str, example_inputs: tuple[Tensor, ...]) -> int:
    """Runs a model once, on a batch of the training set.

    Returns:
        How many classes it has.

    Raises:
        RunError: It raises something, or gives no logits [batch, classes].
    """
    (images,) = example_inputs
    odd = "" if images.dtype == torch.float32 else f" of {type_of(images.dtype)}"
    with (
        evaluating(model),
        blaming(f"model {name} fails on images{odd} {list(images.shape)}", RunError),
    ):
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.dim() != 2:  # noqa: PLR2004
        found = str(list(logits.shape)) if isinstance(logits, Tensor) else kind_of(logits)
        raise RunError(f"model {name} must give logits [batch, classes], got {found}.")
    return logits.shape[1]
