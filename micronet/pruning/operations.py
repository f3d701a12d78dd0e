"""What torch's operations do to labels.

Each handler takes the follower, what the operation gave, and its arguments by name. An operation
that none knows locks the channels that go into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from micronet.pruning.follower import Follower
from micronet.pruning.labels import along, narrow, numbers_places, varying, wide
from micronet.pruning.products import matrix_product

Given: TypeAlias = dict[str, Any]


def follow(follower: Follower, func: Any, out: Any, args: tuple[Any, ...], kwargs: Given) -> None:
    """Labels what an operation gave."""
    name = func.overloadpacket.__name__
    given = dict(zip([a.name for a in func._schema.arguments], args, strict=False))  # noqa: SLF001
    given.update(kwargs)
    first = out[0] if isinstance(out, (tuple, list)) and out else out
    if name in _HANDLERS:
        _HANDLERS[name](follower, first, given)
    elif torch.Tag.pointwise in func.tags or name in _POINTWISE:
        _pointwise(follower, first, _tensors((args, kwargs)))
    elif name in _MOVES:
        _move(follower, func, out, args, kwargs)
    elif name.startswith(_SPATIAL):
        _spatial(follower, first, given)
    elif name in _REDUCTIONS:
        _reduce(follower, first, given, name)
    elif name.endswith("_like"):
        _copy(follower, first, given)
    elif not name.endswith(_FRESH):
        for tensor in _tensors((args, kwargs)):
            follower.lock(tensor, f"its channels go through {name}, which can't be followed")


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _convolution(follower: Follower, out: Tensor, given: Given) -> None:
    x, weight, groups = given["input"], given["weight"], given["groups"]
    if not follower.is_layer(weight):
        follower.lock(x, "it feeds a convolution whose weight no layer holds")
        return
    depthwise = follower.name_of(weight) in follower.found.depthwise
    blocks = 1 if depthwise else groups
    inputs = follower.side(weight, "inputs", x.shape[1], blocks)
    outputs = follower.side(weight, "outputs", out.shape[1], blocks)
    follower.read(follower.labels_of(x), 1, inputs)
    if depthwise:
        numbers = along(0, inputs.first, inputs.size, (inputs.size,))
        repeated = numbers.repeat_interleave(outputs.size // inputs.size)
        follower.couple(repeated, along(0, outputs.first, outputs.size, (outputs.size,)))
    # A transposed convolution computes all its outputs once for each place of its input.
    computed = x.numel() / x.shape[1] if given["transposed"] else out.numel() / out.shape[1]
    _give_counted(follower, out, outputs, computed)


def _linear(follower: Follower, out: Tensor, given: Given) -> None:
    x = given.get("mat1", given.get("self"))
    view = follower.view_of(given["mat2"])
    assert isinstance(x, Tensor)
    if view is None:
        if follower.view_of(x) is not None:
            follower.lock(given["mat2"], "it is multiplied from the left by a parameter")
        else:
            matrix_product(follower, out, x, given["mat2"])
    elif not follower.is_layer(view.parameter) or view.axes != (1, 0):
        owner = type(follower.owner_of(view.parameter)).__name__
        follower.lock(x, f"it feeds a {owner}, which fixes its number of channels")
    else:
        inputs = follower.side(view.parameter, "inputs", x.shape[1])
        follower.read(follower.labels_of(x), 1, inputs)
        outputs = follower.side(view.parameter, "outputs", out.shape[1])
        _give_counted(follower, out, outputs, out.numel() / out.shape[1])


def _give_counted(follower: Follower, out: Tensor, outputs: Any, computed: float) -> None:
    name, positions = outputs.names[0], follower.found.positions
    positions[name] = positions.get(name, 0) + computed
    follower.give(out, 1, outputs)


def _batch_norm(follower: Follower, out: Tensor, given: Given) -> None:
    weight = given["weight"] if given["weight"] is not None else given["running_mean"]
    _norm(follower, out, given["input"], weight, 1, 1)


def _layer_norm(follower: Follower, out: Tensor, given: Given) -> None:
    weight = given["weight"] if len(given["normalized_shape"]) == 1 else None
    _norm(follower, out, given["input"], weight, -1, 1)


def _group_norm(follower: Follower, out: Tensor, given: Given) -> None:
    _norm(follower, out, given["input"], given["weight"], 1, given["group"])


def _norm(
    follower: Follower, out: Tensor, x: Tensor, weight: Tensor | None, axis: int, blocks: int
) -> None:
    labels = follower.labels_of(x)
    if labels is None:
        return
    if weight is None or not follower.is_layer(weight):
        follower.lock(x, "it feeds a normalization whose weight no layer holds")
        return
    follower.read(labels, axis, follower.side(weight, "outputs", x.shape[axis], blocks))
    follower.labels[out] = labels


def _prelu(follower: Follower, out: Tensor, given: Given) -> None:
    labels, view = follower.labels_of(given["self"]), follower.view_of(given["weight"])
    if labels is None:
        return
    if view is None or not follower.is_layer(view.parameter):
        follower.lock_labels(labels, "it feeds a PReLU whose weight no layer holds")
    elif view.parameter.numel() > 1:
        follower.read(labels, 1, follower.side(view.parameter, "outputs", labels.shape[1]))
    follower.labels[out] = labels


def _pointwise(follower: Follower, out: Tensor, tensors: Sequence[Tensor]) -> None:
    """Additions, products and activation functions: what is at one place is one channel."""
    known = [(t, labels) for t in tensors if (labels := follower.labels_of(t)) is not None]
    if not known:
        if len(tensors) == 1 and (view := follower.view_of(tensors[0])) is not None:
            follower.views[out] = view  # a copy, or the same in another type
        return
    expanded = [(t, labels.expand(out.shape)) for t, labels in known]
    axes = {axis for _, labels in expanded for axis in varying(labels)}
    # One number for all channels, as of a spatial attention, couples nothing.
    chosen = [labels for t, labels in expanded if axes <= {*varying(labels), *wide(t, out.dim())}]
    result = chosen[0] if chosen else expanded[0][1]
    for other in chosen[1:]:
        one, two = narrow(result, other)
        follower.couple(one, two)
        if bool((one == 0).any()):
            result = torch.where(result != 0, result, other)
    follower.labels[out] = result
    for tensor in tensors:
        if follower.labels_of(tensor) is None:
            _meet(follower, result, tensor)


def _meet(follower: Follower, labels: Tensor, tensor: Tensor) -> None:
    """Channels meet a tensor that has none: a position embedding, or something that is fixed."""
    axes = [axis for axis in varying(labels) if axis in wide(tensor, labels.dim())]
    if not axes:
        return
    view = follower.view_of(tensor)
    places = [axis for axis in axes if numbers_places(labels, axis)]
    if view is None or follower.owner_of(view.parameter) is None or len(places) != 1:
        follower.lock_labels(labels, "it meets a tensor whose channels are fixed")
        return
    axis = view.axes[places[0] - labels.dim() + tensor.dim()]
    assert axis is not None
    side = follower.side(view.parameter, axis, view.parameter.shape[axis])
    follower.read(labels, places[0], side)


def _move(follower: Follower, func: Any, out: Any, args: Any, kwargs: Given) -> None:
    if all(follower.labels_of(tensor) is None for tensor in _tensors((args, kwargs))):
        if isinstance(out, Tensor):
            _derive(follower, func.overloadpacket.__name__, out, args)
        return

    def labels_for(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf  # a number, or an index
        labels = follower.labels_of(leaf)
        return torch.zeros(leaf.shape, dtype=torch.int64) if labels is None else labels

    moved = func(*tree_map(labels_for, args), **tree_map(labels_for, kwargs))
    for result, labels in zip(_tensors([out]), _tensors([moved]), strict=True):
        follower.labels[result] = labels


def _view(follower: Follower, out: Tensor, given: Given) -> None:
    labels = follower.labels_of(given["self"])
    if labels is not None:
        follower.labels[out] = labels.reshape(out.shape)  # labels may lie otherwise in memory
    else:
        _derive(follower, "view", out, (given["self"],))


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
        shape = view.parameter.shape
        long = [axis for axis in view.axes if axis is not None and shape[axis] > 1]
        same = [shape[axis] for axis in long] == [size for size in out.shape if size > 1]
        left = iter(long)
        axes = [next(left) if size > 1 else None for size in out.shape] if same else None
    elif name not in ("detach", "alias", "clone", "lift_fresh"):
        axes = None
    if axes is not None:
        follower.views[out] = type(view)(view.parameter, tuple(axes))


def _join(follower: Follower, out: Tensor, given: Given) -> None:
    """A concatenation. Beside channels, a tensor without any must not reach along them."""
    parts, axis = given["tensors"], given.get("dim", 0) % out.dim()
    found = [follower.labels_of(part) for part in parts]
    if all(labels is None for labels in found):
        return
    filled = [
        torch.zeros(part.shape, dtype=torch.int64) if labels is None else labels
        for part, labels in zip(parts, found, strict=True)
    ]
    labels = follower.labels[out] = torch.cat(filled, axis)
    across = [other for other in varying(labels) if other != axis]
    if across and any(labels is None for labels in found):
        follower.lock_labels(labels, "it is joined with a tensor whose channels are fixed")


def _pad(follower: Follower, out: Tensor, given: Given) -> None:
    labels = follower.labels_of(given["self"])
    if labels is not None:
        follower.labels[out] = torch.nn.functional.pad(labels, given["pad"])


def _spatial(follower: Follower, out: Tensor, given: Given) -> None:
    """Pooling and resizing, which work on each channel by itself."""
    labels = follower.labels_of(given["self"] if "self" in given else given["input"])
    if labels is None:
        return
    if any(axis > 1 for axis in varying(labels)):
        follower.lock_labels(labels, "its channels lie along height or width")
        return
    for axis in range(2, labels.dim()):
        labels = labels.narrow(axis, 0, 1)
    follower.labels[out] = labels.expand(out.shape)


def _reduce(follower: Follower, out: Tensor, given: Given, name: str) -> None:
    labels = follower.labels_of(given["self"] if "self" in given else given["x"])
    if labels is None:
        return
    asked = given.get("dim")
    asked = [asked] if isinstance(asked, int) else (asked or range(labels.dim()))
    axes = {axis % labels.dim() for axis in asked}
    if axes & set(varying(labels)):
        follower.lock_labels(labels, f"its channels are mixed by {name}")
        return
    for axis in axes:
        labels = labels.narrow(axis, 0, 1)
    follower.labels[out] = labels.reshape(out.shape)


def _softmax(follower: Follower, out: Tensor, given: Given) -> None:
    labels = follower.labels_of(given["self"])
    if labels is None:
        return
    if given["dim"] % labels.dim() in varying(labels):
        follower.lock_labels(labels, "its channels are mixed by softmax")
    follower.labels[out] = labels


def _copy(follower: Follower, out: Tensor, given: Given) -> None:
    """A tensor of the same shape, be it in another order in memory."""
    labels = follower.labels_of(given["self"])
    if labels is not None and labels.shape == out.shape:
        follower.labels[out] = labels


def _batched_product(follower: Follower, out: Tensor, given: Given) -> None:
    one = given.get("batch1", given.get("self"))
    other = given.get("batch2", given.get("mat2"))
    assert isinstance(one, Tensor)
    assert isinstance(other, Tensor)
    matrix_product(follower, out, one, other)


_HANDLERS: dict[str, Callable[[Follower, Any, Given], None]] = {
    "convolution": _convolution,
    "addmm": _linear,
    "mm": _linear,
    "bmm": _batched_product,
    "baddbmm": _batched_product,
    "native_batch_norm": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_prelu_kernel": _prelu,
    "view": _view,
    "_unsafe_view": _view,
    "reshape": _view,
    "as_strided_": _copy,
    "cat": _join,
    "constant_pad_nd": _pad,
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "_safe_softmax": _softmax,
}
_POINTWISE = {
    "hardswish_", "hardswish", "native_dropout", "bernoulli_", "_to_copy", "masked_fill",
    "masked_fill_",
}  # fmt: skip
_MOVES = {
    "permute", "transpose", "t", "expand", "squeeze", "unsqueeze", "slice", "select", "split",
    "split_with_sizes", "unbind", "stack", "clone", "alias", "detach", "lift_fresh", "roll", "flip",
    "repeat", "index", "index_select", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "native_channel_shuffle", "unfold",
}  # fmt: skip
_SPATIAL = (
    "max_pool", "avg_pool", "adaptive_", "_adaptive_", "upsample", "_upsample", "reflection_pad",
    "replication_pad",
)  # fmt: skip
"""How the names of operations begin that work on each channel by itself."""
_REDUCTIONS = {
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "norm", "linalg_vector_norm",
}  # fmt: skip
_FRESH = ("empty", "zeros", "ones", "full")
"""How the names of operations end whose results hold nothing of what they are given."""
