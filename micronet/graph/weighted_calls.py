"""Layers of the user's own classes: a convolution or linear call on a module's own weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import fx, nn

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
        owner = traced.get_submodule(call.owner)
        layer = _layer(call, owner)
        for name, child in owner.named_children():
            layer.add_module(name, child)
        traced.set_submodule(call.owner, layer)
        with traced.graph.inserting_after(node):
            replacement = traced.graph.call_module(call.owner, (call.arguments["input"],))
        replacement.meta = dict(node.meta)
        node.replace_all_uses_with(replacement)
        traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code(is_impure_node=lambda node: node.op != "get_attr")
    traced.recompile()


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
