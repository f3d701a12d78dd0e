"""The boundary around a recipe's data: each sample that any step reads has come through here."""

from __future__ import annotations

import operator
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from micronet.errors import DataError, blaming, describe_error

_TOLD = 60
"""Characters of a label that a message shows."""


@attrs.frozen(eq=False)
class Samples(Dataset[tuple[Tensor, int]]):
    """A data set whose samples are all alike, or are told as its fault.

    Args:
        data: The user's own.
        name: How messages begin, as in `The test set of shop:data`.
        length: Its length.
        shape, dtype: Of every image.
        classes: What the labels must be below; `None` before a model has told.
    """

    data: Any
    name: str
    length: int
    shape: torch.Size
    dtype: torch.dtype
    classes: int | None = None

    @classmethod
    def of(cls, data: Any, name: str) -> Samples:
        """A data set whose every image is as its first.

        Raises:
            DataError: It has no length or no first image, or is no data set.
        """
        if isinstance(data, DataLoader):
            raise DataError(f"{name} must be a data set, got a DataLoader; give its .dataset.")
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise DataError(
                f"{name} must have a length and indices, got {kind_of(data)}; give it __len__ and "
                f"__getitem__."
            )
        with blaming(f"{name} has no length"):
            length = len(data)
        if length < 2:  # noqa: PLR2004
            raise DataError(f"{name} must hold two images or more, got {length}.")
        first, _ = _read(data, 0, name)
        return cls(data, name, length, first.shape, first.dtype)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Sample `index`.

        Raises:
            DataError: The user's code raises something, or the sample can't be trained with.
        """
        image, label = _read(self.data, index, self.name)
        if image.shape != self.shape:
            raise DataError(
                f"{self.name} must give images of one shape, got {list(self.shape)} and "
                f"{list(image.shape)} at index {index}."
            )
        if image.dtype != self.dtype:
            raise DataError(
                f"{self.name} must give images of one type, got {type_of(self.dtype)} and "
                f"{type_of(image.dtype)} at index {index}."
            )
        if self.classes is not None and label >= self.classes:
            raise DataError(
                f"{self.name} gives the label {label} at index {index}, and the model has "
                f"{self.classes} classes: 0 to {self.classes - 1}."
            )
        return image, label


def kind_of(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, Tensor):
        return f"a tensor of {type_of(value.dtype)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an object of type {type(value).__name__}"


def type_of(dtype: torch.dtype) -> str:
    """A type's bare name."""
    return str(dtype).removeprefix("torch.")


def _read(data: Any, index: int, name: str) -> tuple[Tensor, int]:
    try:
        sample = data[index]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit would end the run, StopIteration the epoch
        raise DataError(
            f"{name} gives no image {index}{_file(data, index)}: {describe_error(error)}."
        ) from error
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:  # noqa: PLR2004
        raise DataError(f"{name} must give (image, label), got {kind_of(sample)} at index {index}.")
    image, label = sample
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise DataError(
            f"{name} must give (float tensor, label), got {kind_of(image)} at index {index}. "
            f"{_remedy(image)}"
        )
    number = _class_number(label)
    if number is None:
        raise DataError(
            f"{name} must give a class's number, 0 or more, as the label, got {_shown(label)} at "
            f"index {index}."
        )
    return image, number


def _file(data: Any, index: int) -> str:
    """The file of a sample, where a data set keeps it as torchvision's folders do."""
    try:
        path = data.samples[index][0]
    except Exception:  # the user's own
        return ""
    return f" ({path})" if isinstance(path, str) else ""


def _remedy(image: Any) -> str:
    if isinstance(image, Tensor):
        return "Give image.float() / 255." if image.dtype == torch.uint8 else "Give image.float()."
    if isinstance(image, np.ndarray):
        return "Give torch.from_numpy(image).float(), with the channels first."
    return "ToTensor() of torchvision.transforms makes tensors of images."


def _class_number(label: Any) -> int | None:
    """A label as a number of 0 or more, unless it is something else."""
    if isinstance(label, Tensor):
        if label.dim() != 0:
            return None
        label = label.item()
    try:
        number = -1 if isinstance(label, bool) else operator.index(label)
    except TypeError:
        return None
    return number if number >= 0 else None


def _shown(label: Any) -> str:
    if not isinstance(label, (int, float, str, Tensor, np.generic)):
        return kind_of(label)
    text = " ".join(repr(label).split())
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}..."
