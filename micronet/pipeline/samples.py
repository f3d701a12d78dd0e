"""The boundary around a recipe's data: each sample that any step reads has come through here."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from micronet.errors import DataError, blaming, describe_error, describe_value
from micronet.techniques import Task


@attrs.frozen(eq=False)
class Samples(Dataset[tuple[Tensor, Any]]):
    """A data set whose samples are all alike, or are told as its fault.

    Images may come alone, without targets: then a teacher can train on them.

    Args:
        data: The user's own.
        name: How messages begin, as in `The test set of shop:data`.
        length: Its length.
        shape, dtype: Of every image.
        task: Says what the targets must be.
        labelled: Whether there are targets; otherwise each is `None`.
    """

    data: Any
    name: str
    length: int
    shape: torch.Size
    dtype: torch.dtype
    task: Task
    labelled: bool = True

    @classmethod
    def of(cls, data: Any, name: str, task: Task, *, may_be_bare: bool = False) -> Samples:
        """A data set whose every image is as its first.

        Args:
            data: The user's own.
            name: How messages begin.
            task: Says what the targets must be.
            may_be_bare: Whether images may come without targets.

        Raises:
            DataError: It has no length or no first image, or is no data set.
        """
        if isinstance(data, DataLoader):
            raise DataError(f"{name} must be a data set, got a DataLoader; give its .dataset.")
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise DataError(
                f"{name} must have a length and indices, got {describe_value(data)}; give it "
                f"__len__ and __getitem__."
            )
        with blaming(f"{name} has no length"):
            length = len(data)
        if length < 2:  # noqa: PLR2004
            raise DataError(f"{name} must hold two images or more, got {length}.")
        labelled = not may_be_bare or not _is_bare(data)
        first, _ = _read(data, 0, name, task, labelled=labelled)
        return cls(data, name, length, first.shape, first.dtype, task, labelled)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """Sample `index`.

        Raises:
            DataError: The user's code raises something, or the sample can't be trained with.
        """
        image, target = _read(self.data, index, self.name, self.task, labelled=self.labelled)
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
        return image, target


def _is_bare(data: Any) -> bool:
    """Whether the first sample is an image alone, be it in a tuple, or one with `None`."""
    try:
        first = data[0]
    except Exception:  # told as it is read
        return False
    several = isinstance(first, (tuple, list)) and len(first) > 0
    return isinstance(first, Tensor) or (several and all(each is None for each in first[1:]))


def type_of(dtype: torch.dtype) -> str:
    """A type's bare name."""
    return str(dtype).removeprefix("torch.")


def _read(data: Any, index: int, name: str, task: Task, *, labelled: bool) -> tuple[Tensor, Any]:
    try:
        sample = data[index]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit would end the run, StopIteration the epoch
        raise DataError(
            f"{name} gives no image {index}{_file(data, index)}: {describe_error(error)}."
        ) from error
    if not labelled:
        sample = sample if isinstance(sample, Tensor) else sample[0], None
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:  # noqa: PLR2004
        raise DataError(
            f"{name} must give (image, target), got {describe_value(sample)} at index {index}."
        )
    image, target = sample
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise DataError(
            f"{name} must give (float tensor, target), got {describe_value(image)} at index "
            f"{index}. {_remedy(image)}"
        )
    if not labelled:
        return image, None
    try:
        return image, task.check_target(target, image)
    except DataError as error:
        raise DataError(f"{name} {error} at index {index}.") from error
    except Exception as error:  # a task of the user's own may raise anything
        raise DataError(
            f"The task can't read the target of {name} at index {index}: {describe_error(error)}."
        ) from error


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
