"""What operations on single numbers, and along axes, do to labels: what meets is coupled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from micronet.pruning.follower import Follower, View
from micronet.pruning.labels import narrow, numbers_places, varying, wide
from micronet.pruning.weighted import lock_mixed

Given = dict[str, Any]


def pointwise(follower: Follower, out: Tensor, tensors: Sequence[Tensor]) -> None:
    """Additions, products and activation functions: what is at one place is one channel."""
    views = [view for t in tensors if (view := _weight(follower, t)) is not None]
    if views:
        _compute(follower, out, tensors)
        return
    known = [(t, labels) for t in tensors if (labels := follower.labels_of(t)) is not None]
    if not known:
        if len(tensors) == 1 and (view := follower.view_of(tensors[0])) is not None:
            follower.views[out] = view  # a copy, or the same in another type
        return
    expanded = [(t, labels.expand(out.shape)) for t, labels in known]
    axes = {axis for _, labels in expanded for axis in varying(labels)}
    # One number for all channels, as of a spatial attention or a head, couples nothing.
    chosen = [labels for t, labels in expanded if axes <= {*varying(labels), *wide(t, out.dim())}]
    result = chosen[0] if chosen else expanded[0][1]
    last = max(varying(result), default=None)
    chosen += [o for _, o in expanded if last in varying(o) and not any(o is c for c in chosen)]
    for other in chosen[1:] if chosen else []:
        one, two = narrow(result, other)
        follower.couple(one, two)
        if bool((one == 0).any()):
            result = torch.where(result != 0, result, other)
    follower.label(out, result)
    for tensor in tensors:
        if follower.labels_of(tensor) is None:
            _meet(follower, result, tensor)


def _weight(follower: Follower, tensor: Tensor) -> Any:
    """The view of a layer's weight of several dimensions."""
    view = follower.view_of(tensor)
    return view if view and view.tensor.dim() > 1 and follower.is_layer(view.tensor) else None


def _compute(follower: Follower, out: Tensor, tensors: Sequence[Tensor]) -> None:
    """A weight is computed from a parameter, by standardisation say, and gains of its outputs."""
    for tensor in tensors:
        view = _weight(follower, tensor)
        if view is None or tensor.shape != out.shape:
            continue
        for other in tensors:
            labels = follower.labels_of(other)
            if other is tensor or labels is None:
                continue
            labels = labels.expand(out.shape)
            for axis in varying(labels):
                if view.axes[axis] == 0:
                    side = follower.side(view.tensor, "outputs", out.shape[axis])
                    follower.read(labels, axis, side)
                else:
                    follower.lock_labels(labels, "it is part of a computed weight")
        follower.views[out] = type(view)(view.tensor, view.axes, computed=True)
        return


def _meet(follower: Follower, labels: Tensor, tensor: Tensor) -> None:
    """Channels meet a tensor that has none: a position embedding, or something that is fixed."""
    axes = [axis for axis in varying(labels) if axis in wide(tensor, labels.dim())]
    if not axes:
        return
    view = follower.view_of(tensor)
    places = [axis for axis in axes if numbers_places(labels, axis)]
    axis = view.axes[places[0] - labels.dim() + tensor.dim()] if view and len(places) == 1 else None
    if view is None or axis is None or view.computed or follower.owner_of(view.tensor) is None:
        follower.lock_labels(labels, "it meets a tensor whose channels are fixed")
        return
    side = follower.side(view.tensor, axis, view.tensor.shape[axis])
    follower.read(labels, places[0], side)


def reduce(follower: Follower, out: Tensor, given: Given, name: str) -> None:
    x = given["self"] if "self" in given else given["x"]
    labels, view = follower.labels_of(x), _weight(follower, x)
    asked = given.get("dim")
    asked = [asked] if isinstance(asked, int) else (asked or range(x.dim()))
    axes = {axis % x.dim() for axis in asked}
    if view is not None:
        _reduce_weight(follower, out, view, axes)
    if labels is None:
        return
    if axes & set(varying(labels)) and not _tie(follower, labels, axes):
        follower.lock_labels(labels, f"its channels are mixed by {name}")
        return
    for axis in axes:
        labels = labels.narrow(axis, 0, 1)
    follower.label(out, labels.reshape(out.shape))


def _reduce_weight(follower: Follower, out: Tensor, view: View, axes: set[int]) -> None:
    """A mean of each filter, say; one over several filters makes each depend on all."""
    if not any(own == 0 for axis, own in enumerate(view.axes) if axis not in axes):
        lock_mixed(follower, view.tensor)
    if out.dim() == len(view.axes):
        follower.views[out] = View(view.tensor, view.axes, computed=True)


def softmax(follower: Follower, out: Tensor, given: Given) -> None:
    labels = follower.labels_of(given["self"])
    if labels is None:
        return
    axis = given["dim"] % labels.dim()
    if axis in varying(labels) and not _tie(follower, labels, {axis}):
        follower.lock_labels(labels, "its channels are mixed by softmax")
    follower.label(out, labels)


def glu(follower: Follower, out: Tensor, given: Given) -> None:
    """One half times the sigmoid of the other."""
    labels = follower.labels_of(given["self"])
    if labels is None:
        return
    one, other = labels.chunk(2, given.get("dim", -1))
    follower.couple(*narrow(one, other))
    follower.label(out, one)


def _tie(follower: Follower, labels: Tensor, axes: set[int]) -> bool:
    """Couples what lies along axes, if it is parts of equal size, such as those of a split
    attention, and the channels lie along an axis within them.
    """
    across = axes & set(varying(labels))
    rest = [axis for axis in varying(labels) if axis not in across]
    if len(across) != 1 or not rest or _step(labels, *across) < max(_step(labels, r) for r in rest):
        return False
    axis = across.pop()
    (narrowed,) = narrow(labels)
    for place in range(1, narrowed.shape[axis]):
        follower.couple(narrowed.narrow(axis, 0, 1), narrowed.narrow(axis, place, 1))
    return True


def _step(labels: Tensor, axis: int) -> int:
    """By how much labels grow along an axis."""
    (narrowed,) = narrow(labels)
    return int((narrowed.narrow(axis, 1, 1) - narrowed.narrow(axis, 0, 1)).abs().max())
