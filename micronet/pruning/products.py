"""Products of activations, as in attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from micronet.pruning.follower import Follower
from micronet.pruning.labels import narrow, varying

_BATCH, _ROWS, _COLUMNS = 0, 1, 2


def batched_product(follower: Follower, out: Tensor, given: dict[str, Any]) -> None:
    one = given.get("batch1", given.get("self"))
    other = given.get("batch2", given.get("mat2"))
    assert isinstance(one, Tensor)
    assert isinstance(other, Tensor)
    matrix_product(follower, out, one, other)


def matrix_product(follower: Follower, out: Tensor, one: Tensor, other: Tensor) -> None:
    """[..., n, k] times [..., k, m]: what is summed over k is coupled, what lies along n or m
    goes on.
    """
    left, right = (_matrices(follower.labels_of(tensor)) for tensor in (one, other))
    follower.products += 1
    left, right = (_without_heads(follower, labels) for labels in (left, right))
    summed_left = left is not None and _COLUMNS in varying(left)
    summed_right = right is not None and _ROWS in varying(right)
    for labels in (left, right):
        if labels is not None:
            _note_heads(follower, labels)
    if left is not None and right is not None and summed_left and summed_right:
        follower.couple(left[:, 0, :], right[:, :, 0])
        if _ROWS in varying(left) or _COLUMNS in varying(right):
            _mix(follower, left, right)
        return
    if _parameter(follower, left, -1, other, -2) or _parameter(follower, right, -2, one, -1):
        return
    if summed_left or summed_right or (left is not None and right is not None):
        _mix(follower, left, right)
        return
    labels = left if left is not None else right
    if labels is not None:
        axis = _COLUMNS if left is not None else _ROWS
        shape = (len(labels), *out.shape[-2:])
        follower.label(out, labels.narrow(axis, 0, 1).expand(shape).reshape(out.shape))


def _without_heads(follower: Follower, labels: Tensor | None) -> Tensor | None:
    """Nothing, where there is one channel for each matrix, as for the heads of an attention: they
    stay, and what they meet goes on.
    """
    if labels is None or varying(labels) != [_BATCH]:
        return labels
    follower.lock_labels(labels, "it gives a number for each head of an attention")
    return None


def _parameter(
    follower: Follower, labels: Tensor | None, axis: int, tensor: Tensor, summed: int
) -> bool:
    """Couples channels with the dimension of a parameter that they are summed over."""
    view = follower.view_of(tensor)
    own = view.axes[summed] if view is not None else None
    if labels is None or varying(labels) != [axis % labels.dim()]:
        return False
    if view is None or own is None or view.computed or follower.owner_of(view.tensor) is None:
        return False
    follower.read(labels, axis, follower.side(view.tensor, own, view.tensor.shape[own]))
    return True


def _matrices(labels: Tensor | None) -> Tensor | None:
    """Labels as one batch of matrices."""
    return labels if labels is None else labels.reshape(-1, *labels.shape[-2:])


def _mix(follower: Follower, *found: Tensor | None) -> None:
    for labels in found:
        if labels is not None:
            follower.lock_labels(labels, "its channels are mixed by a product of tensors")


def _note_heads(follower: Follower, labels: Tensor) -> None:
    """Notes in which matrix of the batch, such as the head of an attention, each channel is."""
    if _BATCH not in varying(labels):
        return
    rows = narrow(labels, but=_BATCH)[0].flatten(1)
    heads = torch.arange(len(rows))[:, None].expand_as(rows)
    found = torch.stack([rows, heads])[:, rows != 0].numpy()
    channels, first = np.unique(found[0], return_index=True)
    operation = np.full_like(channels, follower.products)
    follower.found.places.append(np.stack([channels, operation, found[1][first]], axis=1))
