"""Layers of the user's own classes: a module that calls torch's function on its own parameters.

A convolution, linear layer or batch norm written like that becomes torch's layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

_CONVOLUTIONS: dict[Any, type[nn.Module]] = {
    F.conv1d: nn.Conv1d,
    F.conv2d: nn.Conv2d,
    F.conv3d: nn.Conv3d,
}
_CALLS = {*_CONVOLUTIONS, F.linear}


@attrs.frozen(eq=False)
class WeightedCall:
    """A call such as `F.conv2d(x, self.weight, self.bias, ...)` in the forward of a module.

    Args:
        node: The call.
        owner: Name of the module whose weight, and bias if any, the call takes.
        arguments: Its arguments by name, the weight and the bias left out.
    """

    node: fx.Node
    owner: str
    arguments: dict[str, Any]


def weighted_call(node: fx.Node) -> WeightedCall | None:
    """The weighted call at a node; `None` if there is none, or its weight is not only its own."""
    if node.op != "call_function" or node.target not in _CALLS:
        return None
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    arguments = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    weight, bias = arguments.pop("weight", None), arguments.pop("bias", None)
    owner = _owner(weight, "weight")
    if owner is None or (bias is not None and _owner(bias, "bias") != owner):
        return None
    return WeightedCall(node, owner, arguments)


def make_layers_of_calls(traced: fx.GraphModule) -> None:
    """Puts a layer of torch's in the place of each module whose forward is a weighted call.

    The layer shares the module's parameters and takes its submodules along, so every name stays.
    What the module computes around the call stays in the graph.
    """
    for node in list(traced.graph.nodes):
        call = weighted_call(node)
        if call is None:
            continue
        layer = _layer(call, traced.get_submodule(call.owner))
        _replace(traced, node, call.owner, layer, call.arguments["input"])
    for node in list(traced.graph.nodes):
        _make_batch_norm(traced, node)
    traced.graph.eliminate_dead_code(is_impure_node=lambda node: node.op != "get_attr")
    traced.recompile()


def _replace(
    traced: fx.GraphModule, node: fx.Node, owner: str, layer: nn.Module, source: fx.Node
) -> None:
    """Puts a layer in the place of a module, and a call of it in the place of a node."""
    replaced = traced.get_submodule(owner)
    for name, child in replaced.named_children():
        layer.add_module(name, child)
    layer.training = replaced.training
    traced.set_submodule(owner, layer)
    with traced.graph.inserting_after(node):
        replacement = traced.graph.call_module(owner, (source,))
    replacement.meta = dict(node.meta)
    node.replace_all_uses_with(replacement)
    traced.graph.erase_node(node)


_NORM_ARGUMENTS = (
    "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
)  # fmt: skip


def _make_batch_norm(traced: fx.GraphModule, node: fx.Node) -> None:
    """Replaces a call of `F.batch_norm` with a module's own statistics, which follows the mode."""
    if node.op != "call_function" or node.target is not F.batch_norm:
        return
    arguments = {**dict(zip(_NORM_ARGUMENTS, node.args, strict=False)), **node.kwargs}
    held = {name: arguments[name] for name in _NORM_ARGUMENTS[1:5] if arguments.get(name)}
    owners = {_owner(value, name) for name, value in held.items()}
    follows_mode = isinstance(arguments.get("training"), fx.Node)
    if len(owners) != 1 or None in owners or "running_mean" not in held or not follows_mode:
        return
    name = str(owners.pop())
    owner = traced.get_submodule(name)
    rank = len(node.meta["tensor_meta"].shape) if "tensor_meta" in node.meta else None
    kind = _base_of_torch(owner) or _NORMS.get(rank)
    momentum, eps = arguments.get("momentum", 0.1), arguments.get("eps", 1e-5)
    if kind is None or not isinstance(momentum, float) or not isinstance(eps, float):
        return
    mean = owner.running_mean
    assert isinstance(mean, Tensor)
    features = mean.numel()
    layer = kind(features, eps, momentum, affine="weight" in held, device="meta")
    for own in (*held, "num_batches_tracked"):
        if hasattr(owner, own):
            setattr(layer, own, getattr(owner, own))
    if not hasattr(owner, "num_batches_tracked"):
        layer.num_batches_tracked = None
    source = arguments["input"]
    assert isinstance(source, fx.Node)
    mode = arguments["training"]
    assert isinstance(mode, fx.Node)
    _replace(traced, node, name, layer, source)
    if not mode.users:
        traced.graph.erase_node(mode)


_NORMS: dict[int | None, type[_BatchNorm]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}


def _base_of_torch(module: nn.Module) -> type[_BatchNorm] | None:
    """The batch norm of torch's that a module's class derives from."""
    kinds = set(_NORMS.values())
    return next((kind for kind in type(module).__mro__ if kind in kinds), None)


def _layer(call: WeightedCall, owner: nn.Module) -> nn.Module:
    weight, bias = owner.weight, getattr(owner, "bias", None)
    assert isinstance(weight, nn.Parameter)
    assert bias is None or isinstance(bias, nn.Parameter)
    options = {k: v for k, v in call.arguments.items() if k != "input"}
    build: Callable[..., nn.Module]
    if call.node.target is F.linear:
        build, sizes = nn.Linear, (weight.shape[1], weight.shape[0])
    else:
        build = _CONVOLUTIONS[call.node.target]
        sizes = (weight.shape[1] * options.get("groups", 1), weight.shape[0])
        options["kernel_size"] = tuple(weight.shape[2:])
    layer = build(*sizes, bias=bias is not None, device="meta", **options)
    layer.weight = weight
    if bias is not None:
        layer.bias = bias
    return layer


def _owner(node: Any, attribute: str) -> str | None:
    """The module that has a parameter under a name that only this call reads."""
    if not isinstance(node, fx.Node) or node.op != "get_attr" or len(node.users) != 1:
        return None
    owner, _, name = str(node.target).rpartition(".")
    return owner if owner and name == attribute else None
