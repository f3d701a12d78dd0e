"""What torch's operations do to labels.

Each handler takes the follower, what the operation gave, and its arguments by name. An operation
that none knows locks the channels that go into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from micronet.pruning.elementwise import glu, pointwise, reduce, softmax
from micronet.pruning.follower import Follower
from micronet.pruning.norms import batch_norm, group_norm, layer_norm, prelu, rms_norm
from micronet.pruning.products import batched_product
from micronet.pruning.shapes import copy, join, move, pad, put, regions, spatial, tensors_in, view
from micronet.pruning.weighted import convolution, linear, lock_empty


def follow(
    follower: Follower, func: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Labels what an operation gave."""
    name = func.overloadpacket.__name__
    given = dict(zip([a.name for a in func._schema.arguments], args, strict=False))  # noqa: SLF001
    given.update(kwargs)
    first = out[0] if isinstance(out, (tuple, list)) and out else out
    if isinstance(first, Tensor) and first.numel() == 0 and _HANDLERS.get(name) is not regions:
        lock_empty(follower, tensors_in((args, kwargs)))
    elif name in _HANDLERS:
        _HANDLERS[name](follower, first, given)
    elif torch.Tag.pointwise in func.tags or name in _POINTWISE:
        tensors = tensors_in((args, kwargs))
        follower.note_factors([n for n in tree_leaves((args, kwargs)) if type(n) is float], tensors)
        pointwise(follower, first, tensors)
    elif name in _MOVES:
        move(follower, func, out, args, kwargs)
    elif name.startswith(_SPATIAL):
        spatial(follower, first, given)
    elif name in _REDUCTIONS:
        reduce(follower, first, given, name)
    elif name.endswith("_like"):
        copy(follower, first, given)
    elif not name.endswith(_FRESH):
        for tensor in tensors_in((args, kwargs)):
            follower.lock(tensor, _unknown(follower, name))


def _unknown(follower: Follower, name: str) -> str:
    module = follower.working[-1]
    if type(module).__module__.startswith("torch.nn.modules") and not any(module.children()):
        return f"it feeds {follower.module_at_work()}, which fixes its number of channels"
    return f"its channels go through {name}, which can't be followed"


_HANDLERS: dict[str, Callable[[Follower, Any, dict[str, Any]], None]] = {
    "convolution": convolution,
    "addmm": linear,
    "mm": linear,
    "bmm": batched_product,
    "baddbmm": batched_product,
    "native_batch_norm": batch_norm,
    "cudnn_batch_norm": batch_norm,
    "_native_batch_norm_legit": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "native_layer_norm": layer_norm,
    "_fused_rms_norm": rms_norm,
    "native_group_norm": group_norm,
    "_prelu_kernel": prelu,
    "view": view,
    "_unsafe_view": view,
    "reshape": view,
    "as_strided_": copy,
    "clone": copy,
    "alias": copy,
    "detach": copy,
    "lift_fresh": copy,
    "cat": join,
    "constant_pad_nd": pad,
    "index_put_": put,
    "index_put": put,
    "_softmax": softmax,
    "_log_softmax": softmax,
    "_safe_softmax": softmax,
    "glu": glu,
    "roi_align": regions,
    "roi_pool": regions,
}
_POINTWISE = {
    "hardswish_", "hardswish", "native_dropout", "bernoulli_", "_to_copy", "masked_fill",
    "masked_fill_",
}  # fmt: skip
_MOVES = {
    "permute", "transpose", "t", "expand", "squeeze", "unsqueeze", "slice", "select", "split",
    "split_with_sizes", "unbind", "stack", "roll", "flip", "repeat", "index", "index_select",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "unfold",
}  # fmt: skip
_SPATIAL = (
    "max_pool", "avg_pool", "adaptive_", "_adaptive_", "upsample", "_upsample", "reflection_pad",
    "replication_pad",
)  # fmt: skip
"""How the names of operations begin that work on each channel by itself."""
_REDUCTIONS = {
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "norm", "linalg_vector_norm",
    "var_mean",
}  # fmt: skip
_FRESH = ("empty", "zeros", "ones", "full")
"""How the names of operations end whose results hold nothing of what they are given."""
