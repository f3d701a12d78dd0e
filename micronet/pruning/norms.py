"""What normalizations do to labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from micronet.pruning.follower import Follower
from micronet.pruning.labels import narrow
from micronet.pruning.weighted import lock_mixed

Given = dict[str, Any]


def batch_norm(follower: Follower, out: Tensor, given: Given) -> None:
    x, axis = given["input"], 1
    weight = given["weight"] if given["weight"] is not None else given["running_mean"]
    view = follower.view_of(x)
    if view is not None and follower.labels_of(x) is None:  # a weight that is standardised
        if not follower.is_layer(view.tensor):
            return
        if view.axes[axis] != 0:
            lock_mixed(follower, view.tensor)
        elif weight is not None:
            side = follower.side(view.tensor, "outputs", x.shape[axis])
            follower.read(_spread(follower, weight, x, axis), axis, side)
        follower.views[out] = type(view)(view.tensor, view.axes, computed=True)
        return
    _norm(follower, out, x, weight, axis, _NormBase)


def layer_norm(follower: Follower, out: Tensor, given: Given) -> None:
    if len(given["normalized_shape"]) > 1:
        follower.lock(given["input"], "it is normalized over several axes together")
        return
    _norm(follower, out, given["input"], given["weight"], -1, nn.LayerNorm)


def rms_norm(follower: Follower, out: Tensor, given: Given) -> None:
    if len(given["normalized_shape"]) > 1:
        follower.lock(given["input"], "it is normalized over several axes together")
        return
    _norm(follower, out, given["input"], given["weight"], -1, nn.RMSNorm)


def group_norm(follower: Follower, out: Tensor, given: Given) -> None:
    _norm(follower, out, given["input"], given["weight"], 1, nn.GroupNorm)


def _norm(
    follower: Follower, out: Tensor, x: Tensor, weight: Tensor | None, axis: int, kind: type
) -> None:
    labels = follower.labels_of(x)
    if labels is None:
        return
    own = None if weight is None else _spread(follower, weight, x, axis)
    if own is not None:
        (narrowed,) = narrow(labels, but=axis)
        follower.couple(narrowed, narrow(own, but=axis)[0])
    elif weight is not None:
        follower.lock(x, "it feeds a normalization whose weight no layer holds")
    elif isinstance(module := follower.working[-1], kind) and follower.is_layer(module):
        size = x.shape[axis]
        if isinstance(module, _InstanceNorm):
            size = module.num_features  # torch takes the images of a batch for channels
        side = follower.side(module, "outputs", size)
        follower.read(labels.narrow(axis, 0, size), axis, side)
    elif kind is not _NormBase:
        follower.lock(x, f"it is normalized by the code of {follower.module_at_work()}")
    follower.label(out, labels)


def _spread(follower: Follower, weight: Tensor, x: Tensor, axis: int) -> Tensor | None:
    """The labels of a weight of one dimension, along an axis of what it meets."""
    labels = follower.labels_of(weight)
    if labels is None:
        return None
    shape = [1] * x.dim()
    shape[axis] = x.shape[axis]
    return labels.reshape(shape).expand(x.shape)


def prelu(follower: Follower, out: Tensor, given: Given) -> None:
    labels, slopes = follower.labels_of(given["self"]), follower.labels_of(given["weight"])
    if labels is None:
        return
    if slopes is None:
        follower.lock_labels(labels, "it feeds a PReLU whose weight no layer holds")
    elif given["weight"].numel() > 1:
        follower.couple(*narrow(labels, slopes.expand(labels.shape)))
    follower.label(out, labels)
