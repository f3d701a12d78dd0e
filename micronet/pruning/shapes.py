"""What operations that only move numbers do to labels: the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from micronet.pruning.follower import Follower, View
from micronet.pruning.labels import narrow, parts, varying

Given = dict[str, Any]


def tensors_in(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def move(follower: Follower, func: Any, out: Any, args: Any, kwargs: Given) -> None:
    if all(follower.labels_of(tensor) is None for tensor in tensors_in((args, kwargs))):
        if isinstance(out, Tensor):
            _derive(follower, func.overloadpacket.__name__, out, args)
        return

    for index in tensors_in((args[1:], kwargs)):
        follower.lock(index, "it chooses places of another tensor")

    def labels_for(tensor: Any) -> Any:
        labels = follower.labels_of(tensor)
        return torch.zeros((), dtype=torch.int64).expand(tensor.shape) if labels is None else labels

    moved = func(tree_map_only(Tensor, labels_for, args[0]), *args[1:], **kwargs)
    for result, labels in zip(tensors_in([out]), tensors_in([moved]), strict=True):
        follower.label(result, labels)
    if func.overloadpacket.__name__ == "split":
        one, *others = moved
        follower.equal(one, [other for other in others if other.shape == one.shape])


def copy(follower: Follower, out: Tensor, given: Given) -> None:
    """A tensor of the same shape, be it in another order in memory."""
    labels, view = follower.labels_of(given["self"]), follower.view_of(given["self"])
    if labels is not None and labels.shape == out.shape:
        follower.label(out, labels)
    elif labels is None and view is not None and given["self"].shape == out.shape:
        follower.views[out] = view


def view(follower: Follower, out: Tensor, given: Given) -> None:
    labels = follower.labels_of(given["self"])
    if labels is None:
        _derive(follower, "view", out, (given["self"],))
        return
    # Axes before and after those that change need no copy.
    first = 0
    while first < min(labels.dim(), out.dim()) and labels.shape[first] == out.shape[first]:
        first += 1
    if first and not set(range(first)) & set(varying(labels)):
        for axis in range(first):
            labels = labels.narrow(axis, 0, 1)
        follower.label(out, labels.reshape([1] * first + list(out.shape[first:])))
    else:
        follower.label(out, labels.reshape(out.shape))
    divided = follower.labels_of(out)
    if divided is not None and len(varying(labels)) == 1:
        one, *others = parts(divided)
        follower.equal(one, others)


def _derive(follower: Follower, name: str, out: Tensor, args: Any) -> None:
    """A parameter in another shape."""
    view = follower.view_of(args[0]) if args and isinstance(args[0], Tensor) else None
    if view is None:
        return
    axes: list[int | None] | None = list(view.axes)
    if name == "t":
        axes = axes[::-1] if axes else axes
    elif name == "permute":
        axes = [view.axes[axis] for axis in args[1]]
    elif name == "transpose" and axes is not None:
        axes[args[1]], axes[args[2]] = axes[args[2]], axes[args[1]]
    elif name in ("view", "unsqueeze", "squeeze"):
        axes = _reshaped(view, out)
    elif name not in ("detach", "alias", "clone", "lift_fresh"):
        axes = None
    if axes is not None:
        follower.views[out] = View(view.tensor, tuple(axes), view.computed)


def _reshaped(view: View, out: Tensor) -> list[int | None] | None:
    """The axes of a parameter in another shape, those that are merged left out."""
    shape = view.tensor.shape
    known = [axis for axis in view.axes if axis is not None and shape[axis] > 1]
    if known != sorted(known):
        same = [shape[axis] for axis in known] == [size for size in out.shape if size > 1]
        left = iter(known)
        return [next(left) if size > 1 else None for size in out.shape] if same else None
    if out.shape == shape:
        return list(range(len(shape)))
    left_axes = [axis for axis, size in enumerate(shape) if size > 1]
    axes: list[int | None] = []
    for size in out.shape:
        if size > 1 and left_axes and shape[left_axes[0]] == size:
            axes.append(left_axes.pop(0))
        else:
            axes.append(None)
            left_axes = left_axes if size == 1 else []
    return axes


def join(follower: Follower, out: Tensor, given: Given) -> None:
    """A concatenation. Beside channels, a tensor without any must not reach along them."""
    axis = given.get("dim", 0) % out.dim()
    parts = [part for part in given["tensors"] if part.numel()]
    found = [follower.labels_of(part) for part in parts]
    if all(labels is None for labels in found):
        return
    filled = [
        torch.zeros((), dtype=torch.int64).expand(part.shape) if labels is None else labels
        for part, labels in zip(parts, found, strict=True)
    ]
    labels = torch.cat(filled, axis)
    follower.label(out, labels)
    across = [other for other in varying(labels) if other != axis]
    if across and any(labels is None for labels in found):
        follower.lock_labels(labels, "it is joined with a tensor whose channels are fixed")


def put(follower: Follower, out: Tensor, given: Given) -> None:
    """Rows that are written into a tensor, as those of regions of each level of a pyramid."""
    before, values = (follower.labels_of(given[name]) for name in ("self", "values"))
    if values is None and before is None:
        return
    rows = len(given["indices"]) == 1 and given["values"].dim() == out.dim()
    known = [labels for labels in (before, values) if labels is not None]
    if not rows or any(0 in varying(labels) for labels in known):
        for labels in known:
            follower.lock_labels(labels, "it is written to places that can't be followed")
        return
    known = [labels.narrow(0, 0, 1) for labels in known]
    if len(known) > 1:
        follower.couple(*narrow(*known))
    follower.label(out, known[-1])


def pad(follower: Follower, out: Tensor, given: Given) -> None:
    labels = follower.labels_of(given["self"])
    if labels is None:
        return
    # Along axes that channels don't lie along, what is put there belongs to the channel too.
    amounts = list(given["pad"])
    for axis in set(range(labels.dim())) - set(varying(labels)):
        labels = labels.narrow(axis, 0, 1)
        first = 2 * (labels.dim() - 1 - axis)
        amounts[first : first + 2] = [0] * len(amounts[first : first + 2])
    follower.label(out, torch.nn.functional.pad(labels, amounts))


def spatial(follower: Follower, out: Tensor, given: Given) -> None:
    """Pooling and resizing, which work on each channel by itself."""
    labels = follower.labels_of(given["self"] if "self" in given else given["input"])
    if labels is None:
        return
    if any(axis > 1 for axis in varying(labels)):
        follower.lock_labels(labels, "its channels lie along height or width")
        return
    for axis in range(2, labels.dim()):
        labels = labels.narrow(axis, 0, 1)
    follower.label(out, labels)


def regions(follower: Follower, out: Tensor, given: Given) -> None:
    """Regions of maps, each with all channels of its map."""
    labels = follower.labels_of(given["input"])
    if labels is None:
        return
    if any(axis != 1 for axis in varying(labels)):
        follower.lock_labels(labels, "its channels lie along height or width")
        return
    for axis in (0, 2, 3):
        labels = labels.narrow(axis, 0, 1)
    follower.label(out, labels)
