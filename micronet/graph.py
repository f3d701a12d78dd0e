"""A model's data flow: tracing, and what follows from who feeds whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _BatchNorm

from micronet.errors import MicronetError
from micronet.modes import evaluating, modes_kept
from micronet.quantization.fake_quantizer import FakeQuantizer
from micronet.quantization.layers import QuantizedLayer
from micronet.quantization.lifecycle import in_mode


class TracingError(MicronetError):
    """torch.fx can't follow the model; the message says where it stopped."""


_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout}
_FUNCTIONAL: dict[Any, Callable[..., nn.Module]] = {
    F.dropout: lambda p=0.5, **_: nn.Dropout(p),
    F.dropout1d: lambda p=0.5, **_: nn.Dropout1d(p),
    F.dropout2d: lambda p=0.5, **_: nn.Dropout2d(p),
    F.dropout3d: lambda p=0.5, **_: nn.Dropout3d(p),
    F.alpha_dropout: lambda p=0.5, **_: nn.AlphaDropout(p),
    F.relu: lambda **_: nn.ReLU(),
    F.relu_: lambda **_: nn.ReLU(),
    F.relu6: lambda **_: nn.ReLU6(),
    torch.relu: lambda **_: nn.ReLU(),
    torch.relu_: lambda **_: nn.ReLU(),
    "relu": lambda **_: nn.ReLU(),
    "relu_": lambda **_: nn.ReLU(),
}
"""Functional calls that become modules: dropout, whose `training` a trace would fix, and what
techniques replace. (In-place variants too: fresh outputs are the same values.)"""


class _Tracer(fx.Tracer):
    """Follows calls down to torch's layers and micronet's."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        childless = not any(module.children())
        return (
            isinstance(module, (QuantizedLayer, FakeQuantizer, _BatchNorm))
            or (childless and type(module).__module__.startswith("torchvision.ops"))
            or super().is_leaf_module(module, name)
        )


def trace(model: nn.Module) -> fx.GraphModule:
    """The model as a graph over the same submodules and parameters; `model` is not changed.

    Every submodule and parameter keeps its name, those that the graph does not use included.
    Functional dropout and relu become modules, so that train and eval mode go on working and
    techniques can replace them.

    Raises:
        TracingError: The forward pass depends on values, or differs between train and eval mode.
    """
    graphs = []
    with modes_kept(model):
        for training in (True, False):
            model.train(training)
            graphs.append(_traced(model))
    graph, eval_graph = graphs
    created = _functional_modules(graph, eval_graph, model)
    if _structure(graph) != _structure(eval_graph):
        raise TracingError(
            f"{type(model).__name__} computes differently in train and eval mode, beyond dropout "
            f"and batch norm"
        )
    for name, module in created.items():
        model.add_module(name, module)
    try:
        traced = fx.GraphModule(model, graph)
    finally:
        for name in created:
            delattr(model, name)
    _adopt_unused(traced, model)
    own = dict(model.named_modules())
    for name, module in traced.named_modules():
        module.training = own[name].training if name in own else model.training
    return traced


def _traced(model: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(model)
    except Exception as error:  # fx raises whatever the model's code raises on a proxy
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TracingError(f"torch.fx can't trace {type(model).__name__}: {reason}") from error


def conv_bn_pairs(
    model: nn.Module, example_inputs: tuple[Tensor, ...] = ()
) -> list[tuple[str, str]]:
    """Names of each layer and the batch norm that alone reads its output, in graph order.

    Convolutions and linear layers count, quantized or not. A module that is called more than once
    or shares its weight with another does not, since its batch norm would have to fold into every
    use; nor does a linear layer whose batch norm runs along another dimension than its outputs,
    which only `example_inputs` can tell.

    Raises:
        TracingError: As `trace`.
    """
    graph = _traced(model) if not isinstance(model, fx.GraphModule) else model.graph
    modules = dict(model.named_modules())
    ranks = _output_ranks(model, example_inputs)
    owners = Counter(
        id(parameter)
        for module in modules.values()
        for parameter in module.parameters(recurse=False)
    )
    calls = [node for node in graph.nodes if node.op == "call_module"]
    called = [node.target for node in calls]
    pairs = []
    for node in calls:
        bn = modules[node.target]
        source = node.args[0] if node.args else None
        if not isinstance(bn, _BatchNorm) or bn.running_mean is None:
            continue
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        layer = modules[source.target]
        once = called.count(source.target) == 1 and called.count(node.target) == 1
        alone = owners[id(layer.weight)] == 1
        flat = not isinstance(layer, nn.Linear) or ranks.get(str(source.target)) == 2  # noqa: PLR2004
        if once and alone and flat and _takes_a_fold(layer):
            pairs.append((str(source.target), str(node.target)))
    return pairs


def execution_order(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the modules without children, in the order in which the forward pass first calls
    them; those that it does not call are left out.
    """
    called: dict[str, None] = {}
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.setdefault(name))
        for name, module in model.named_modules()
        if not any(module.children())
    ]
    try:
        with torch.no_grad(), evaluating(model), in_mode("off", model):
            model(*example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(called)


def propagate_shapes(traced: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> None:
    """Gives every node its result's dtype and shape (`node.meta["tensor_meta"]`)."""
    with torch.no_grad(), evaluating(traced):
        ShapeProp(traced).propagate(*example_inputs)


def is_float_tensor(node: Any) -> bool:
    """Whether a node's result is one float tensor; needs `propagate_shapes`."""
    meta = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    dtype = getattr(meta, "dtype", None)
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point


def _output_ranks(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> dict[str, int]:
    """Dimensions of what each linear layer gives."""
    ranks: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: ranks.update({name: output.dim()})

    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not (layers and example_inputs):
        return ranks
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers]
    try:
        with torch.no_grad(), evaluating(model), in_mode("off", model):
            model(*example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return ranks


def _takes_a_fold(layer: nn.Module) -> bool:
    if layer.weight is None:  # stored as integers already
        return False
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.groups == 1 and not isinstance(layer, QuantizedLayer)
    return isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))


def _functional_modules(
    graph: fx.Graph, eval_graph: fx.Graph, model: nn.Module
) -> dict[str, nn.Module]:
    """Replaces the calls that `_FUNCTIONAL` names by calls of new modules, and returns those.

    Args:
        graph: Traced in train mode; changed.
        eval_graph: Traced in eval mode; changed alike.
        model: Whose names are taken. Dropout that does not follow its mode stays as it is.
    """
    created: dict[str, nn.Module] = {}
    for node, twin in zip(list(graph.nodes), list(eval_graph.nodes), strict=False):
        if node.op not in ("call_function", "call_method") or node.target not in _FUNCTIONAL:
            continue
        if (node.op, node.target) != (twin.op, twin.target):
            break  # the graphs differ, which `trace` will say
        options = {key: value for key, value in node.kwargs.items() if key != "input"}
        if node.target in _DROPOUTS:
            follows = (_training(node), _training(twin)) == (True, False)
            if not follows:
                continue
            options.setdefault("p", node.args[1] if len(node.args) > 1 else 0.5)
        name = _free_name(f"{node.name}_module", model)
        created[name] = _FUNCTIONAL[node.target](**options)
        for place in (node, twin):
            source = place.args[0] if place.args else place.kwargs["input"]
            with place.graph.inserting_after(place):
                call = place.graph.call_module(name, (source,))
            place.replace_all_uses_with(call)
            place.graph.erase_node(place)
    return created


def _training(dropout: fx.Node) -> Any:
    """The `training` argument of a functional dropout, true by default."""
    return dropout.kwargs.get("training", dropout.args[2] if len(dropout.args) > 2 else True)  # noqa: PLR2004


def _free_name(name: str, model: nn.Module) -> str:
    while hasattr(model, name):
        name += "_"
    return name


def _structure(graph: fx.Graph) -> list[tuple[str, str, str]]:
    return [(node.op, str(node.target), str(node.args) + str(node.kwargs)) for node in graph.nodes]


def _adopt_unused(traced: fx.GraphModule, model: nn.Module) -> None:
    """Submodules and parameters that the graph does not call stay, with their names."""
    for name, module in _outermost_missing(model, traced):
        traced.add_submodule(name, module)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        path, _, leaf = name.rpartition(".")
        owner = traced.get_submodule(path)
        if hasattr(owner, leaf):
            continue
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            owner.register_buffer(leaf, tensor)


def _outermost_missing(model: nn.Module, traced: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    present = {name for name, _ in traced.named_modules(remove_duplicate=False)}
    missing: list[str] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if name in present or any(name.startswith(f"{outer}.") for outer in missing):
            continue
        missing.append(name)
        yield name, module
