"""What a recipe's data and model give, looked at before any work."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from micronet.errors import DataError, MicronetError, RunError, describe_error
from micronet.graph.modes import evaluating
from micronet.training.loop import Images

Sets = tuple[Images, Images]
_LOOKED_AT = 16


def checked_sets(loaded: Any, name: str) -> Sets:
    """The training and the test set, if that is what a recipe's data gave.

    Their first two and last images are looked at; the rest is met by the steps.

    Args:
        loaded: What `data` returned.
        name: What the recipe calls it.

    Raises:
        DataError: It is no pair of data sets, or they can't be trained with.
    """
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:  # noqa: PLR2004
        found = f"{len(loaded)} things" if isinstance(loaded, (tuple, list)) else _kind(loaded)
        raise DataError(f"data {name} must return two data sets, (train, test), got {found}.")
    train, test = loaded
    shape = _checked_shape(train, f"The training set of {name}")
    test_shape = _checked_shape(test, f"The test set of {name}")
    if shape != test_shape:
        raise DataError(
            f"The images of {name} must all have one shape, got {_shape(shape)} for training and "
            f"{_shape(test_shape)} for the test."
        )
    return train, test


@torch.no_grad()
def check_model(model: nn.Module, name: str, example_inputs: tuple[Tensor, ...]) -> int:
    """Runs a model once, on a batch of the training set, and tells how many classes it has.

    Raises:
        RunError: It raises something, or gives no logits [batch, classes].
    """
    (images,) = example_inputs
    with evaluating(model):
        try:
            logits = model(images)
        except MicronetError:
            raise
        except Exception as error:  # a user's model may raise anything
            raise RunError(
                f"model {name} fails on images {_shape(images.shape)}: {describe_error(error)}."
            ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2:  # noqa: PLR2004
        found = _shape(logits.shape) if isinstance(logits, Tensor) else _kind(logits)
        raise RunError(f"model {name} must give logits [batch, classes], got {found}.")
    return logits.shape[1]


def highest_label(data: Any, name: str) -> int:
    """The highest label among some images all over a data set.

    Where the set keeps its labels as torchvision's do, one with the highest of them is among these.

    Raises:
        DataError: It can't be trained with.
    """
    indices = {*range(0, len(data), max(1, len(data) // _LOOKED_AT)), len(data) - 1}
    kept = getattr(data, "targets", None)
    if isinstance(data, TensorDataset) and len(data.tensors) > 1:
        kept = data.tensors[1]
    with contextlib.suppress(TypeError, ValueError, RuntimeError):  # the user's own, no labels
        indices.add(int(torch.as_tensor(kept).argmax()))
    return max(_sample(data, index, name)[1] for index in indices if index < len(data))


def _checked_shape(data: Any, name: str) -> torch.Size:
    """The shape of the images of a data set that looks as it must."""
    if isinstance(data, DataLoader):
        raise DataError(f"{name} must be a data set, got a DataLoader; give its .dataset.")
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise DataError(f"{name} must have a length and indices, got {_kind(data)}.")
    if len(data) < 2:  # noqa: PLR2004
        raise DataError(f"{name} must hold two images or more, got {len(data)}.")
    shapes = [_sample(data, index, name)[0].shape for index in (0, 1, len(data) - 1)]
    for shape in shapes:
        if shape != shapes[0]:
            raise DataError(
                f"{name} must give images of one shape, got {_shape(shapes[0])} and "
                f"{_shape(shape)}."
            )
    return shapes[0]


def _sample(data: Any, index: int, name: str) -> tuple[Tensor, int]:
    try:
        sample = data[index]
    except MicronetError:
        raise
    except Exception as error:  # a user's data set may raise anything
        raise DataError(f"{name} gives no image {index}: {describe_error(error)}.") from error
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:  # noqa: PLR2004
        raise DataError(f"{name} must give (image, label), got {_kind(sample)}.")
    image, label = sample
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise DataError(f"{name} must give (float tensor, label), got {_kind(image)}.")
    number = label.item() if isinstance(label, Tensor) and label.dim() == 0 else label
    if isinstance(number, (bool, Tensor)) or not hasattr(number, "__index__") or number < 0:
        raise DataError(
            f"{name} must give a class's number, 0 or more, as the label, got {label!r}."
        )
    return image, int(number)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an object of type {type(value).__name__}"


def _shape(shape: torch.Size) -> str:
    return str(list(shape))
