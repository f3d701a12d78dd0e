"""Tensors of labels: for each element of an activation, the number of its channel; 0 for none.

They are as large as the activation, but hold little: expanded along every axis that repeats them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def along(axis: int, first: int, count: int, shape: Sequence[int]) -> Tensor:
    """Labels `first` to `first + count - 1` along an axis of the given shape."""
    numbers = torch.arange(first, first + count)
    return numbers.reshape([-1 if i == axis else 1 for i in range(len(shape))]).expand(*shape)


def varying(labels: Tensor) -> list[int]:
    """The axes along which labels differ."""
    for axis, stride in enumerate(labels.stride()):
        if stride == 0 and labels.shape[axis] > 1:
            labels = labels.narrow(axis, 0, 1)
    found = []
    for axis, size in enumerate(labels.shape):
        if size > 1 and bool((labels != labels.narrow(axis, 0, 1)).any()):
            found.append(axis)
        elif size > 1:
            labels = labels.narrow(axis, 0, 1)
    return found


def compact(labels: Tensor) -> Tensor:
    """The same, holding one entry along every axis on which they don't differ."""
    shape = labels.shape
    (labels,) = narrow(labels)
    return labels.expand(shape)


def narrow(*labels: Tensor, but: int | None = None) -> list[Tensor]:
    """Labels of one shape, with one entry along every axis on which none of them differs.

    Args:
        labels: To be narrowed.
        but: An axis that stays whole.
    """
    keep = {axis for each in labels for axis in varying(each)}
    if but is not None:
        keep.add(but % labels[0].dim())
    found = list(labels)
    for axis in range(labels[0].dim()):
        if axis not in keep:
            found = [each.narrow(axis, 0, 1) for each in found]
    return found


def parts(labels: Tensor) -> list[Tensor]:
    """What lies at each place of the first of several axes on which labels differ; else all."""
    axes = varying(labels)
    (narrowed,) = narrow(labels)
    return list(narrowed.unbind(axes[0])) if len(axes) > 1 else [narrowed]


def numbers_places(labels: Tensor, axis: int) -> bool:
    """Whether each label is found at one place alone along an axis."""
    (rows,) = narrow(labels, but=axis)
    rows = rows.movedim(axis, 0).flatten(1)
    places = torch.arange(len(rows))[:, None].expand_as(rows)
    both = (rows * len(rows) + places)[rows != 0]
    return len(torch.unique(both)) == len(distinct(rows))


def distinct(labels: Tensor) -> Tensor:
    """Every label but 0, once."""
    found: Tensor = torch.unique(labels)
    return found[found != 0]


def distinct_pairs(one: Tensor, other: Tensor) -> Tensor:
    """Every pair of labels that are at one place, once [2, pairs]."""
    found: Tensor = torch.unique(torch.stack([one.flatten(), other.flatten()]), dim=1)
    return found


def wide(tensor: Tensor, dimensions: int) -> list[int]:
    """The axes of a result with so many, along which a broadcast tensor has several entries."""
    offset = dimensions - tensor.dim()
    return [axis + offset for axis, size in enumerate(tensor.shape) if size > 1]
