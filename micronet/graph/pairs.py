"""Batch norms that can be folded into the layer before them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from torch import fx, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from micronet.graph.layers_of_calls import weighted_call
from micronet.graph.leaf import Leaf
from micronet.graph.specialized import TracingError
from micronet.graph.tracing import follow, graphs, trace_parts

_FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = {_BatchNorm.forward, SyncBatchNorm.forward}


def make_foldable(model: nn.Module, example_inputs: tuple[Any, ...]) -> list[tuple[str, str]]:
    """As `conv_bn_pairs`; layers of the user's own classes become torch's, in place.

    Such a layer's code may leave no room for a bias, or do more than normalize, so that the model
    is given a graph, in which the layer is torch's and the rest of its code stands beside it.
    """
    pairs = conv_bn_pairs(model, example_inputs)
    named = [(model.get_submodule(layer), model.get_submodule(bn)) for layer, bn in pairs]
    if not all(_takes_a_fold(layer) and _is_batch_norm(bn) for layer, bn in named):
        follow(model, example_inputs)
    return pairs


def conv_bn_pairs(model: nn.Module, example_inputs: tuple[Any, ...] = ()) -> list[tuple[str, str]]:
    """Names of each layer and the batch norm that alone reads its output, in graph order.

    Convolutions and linear layers count, quantized or not. A module that is called more than once
    or shares its weight with another does not, since its batch norm would have to fold into every
    use; nor does a linear layer whose batch norm runs along another dimension than its outputs,
    which only `example_inputs` can tell; nor a subclass of either with a forward of its own.

    Raises:
        TracingError: No part of the model can be followed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is left out of the model itself
        followed, reasons = trace_parts(model, example_inputs)
    parts = list(graphs(followed))
    if not parts and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise TracingError(reasons.get("", f"{type(model).__name__} can't be followed"))
    modules = dict(followed.named_modules())
    owners = Counter(
        id(parameter)
        for module in modules.values()
        for parameter in module.parameters(recurse=False)
    )
    return [
        pair
        for name, part in parts
        for pair in _pairs(part, f"{name}." if name else "", modules, owners)
    ]


def _pairs(
    part: fx.GraphModule, prefix: str, modules: Mapping[str, nn.Module], owners: Mapping[int, int]
) -> Iterator[tuple[str, str]]:
    calls = [node for node in part.graph.nodes if node.op == "call_module"]
    called = Counter(f"{prefix}{node.target}" for node in calls)
    for node in calls:
        bn_name = f"{prefix}{node.target}"
        bn, source = modules.get(bn_name), node.args[0] if node.args else None
        if not _is_batch_norm(bn) or called[bn_name] != 1:
            continue
        name = _layer_behind(source, prefix)
        layer = modules.get(name) if name is not None else None
        if name is None or layer is None or called[name] > 1 or not _takes_a_fold(layer):
            continue
        assert isinstance(source, fx.Node)
        weight: Any = layer.weight
        if owners[id(weight)] == 1 and (not isinstance(layer, nn.Linear) or _rank(source) == 2):  # noqa: PLR2004
            yield name, bn_name


def _is_batch_norm(module: nn.Module | None) -> TypeGuard[_BatchNorm]:
    """Whether a module computes just what torch's batch norm does, with statistics to fold."""
    return (
        isinstance(module, _BatchNorm)
        and type(module).forward in _NORMS
        and module.running_mean is not None
    )


def _layer_behind(source: Any, prefix: str) -> str | None:
    """The layer whose output a node is and that nothing else reads, by its name."""
    if not isinstance(source, fx.Node) or len(readers(source)) != 1:
        return None
    if source.op == "call_module":
        return f"{prefix}{source.target}"
    call = weighted_call(source)
    return None if call is None else f"{prefix}{call.owner}"


def readers(node: fx.Node) -> list[fx.Node]:
    """The nodes that read the numbers of a tensor, and not only its size or type."""
    return [user for user in node.users if not _asks_for_size(user)]


def _asks_for_size(node: fx.Node) -> bool:
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    return (node.op, node.target) in _QUESTIONS


_QUESTIONS: set[tuple[str, Any]] = {
    ("call_function", len),
    *(("call_method", name) for name in ("size", "dim", "numel", "ndimension", "nelement")),
}


def _takes_a_fold(layer: nn.Module) -> bool:
    """Whether a module is a convolution or linear layer of torch's, or a quantized one of those."""
    if getattr(layer, "weight", None) is None:  # stored as integers already
        return False
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.groups == 1 and type(layer).forward is nn.ConvTranspose2d.forward
    return any(
        isinstance(layer, kind) and (isinstance(layer, Leaf) or type(layer).forward is kind.forward)
        for kind in _FOLDABLE
    )


def _rank(node: fx.Node) -> int | None:
    """Dimensions of what a node gives; `None` if unknown."""
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return None if shape is None else len(shape)
