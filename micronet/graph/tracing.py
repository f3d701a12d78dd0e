"""A model's data flow: tracing, and what follows from who feeds whom."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _BatchNorm

from micronet.errors import MicronetError
from micronet.graph.example_inputs import check_example_inputs
from micronet.graph.leaf import Leaf, probes_off
from micronet.graph.modes import evaluating, modes_kept
from micronet.graph.weighted_calls import make_layers_of_calls, weighted_call


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


class ByMode(nn.Module):
    """Chooses between what a model gives in train mode and what it gives in eval mode."""

    def forward(self, in_training: Any, in_evaluation: Any) -> Any:
        return in_training if self.training else in_evaluation


class _Tracer(fx.Tracer):
    """Follows calls down to torch's layers and micronet's."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        childless = not any(module.children())
        return (
            isinstance(module, (Leaf, _BatchNorm))
            or (childless and type(module).__module__.startswith("torchvision.ops"))
            or super().is_leaf_module(module, name)
        )


def trace(model: nn.Module) -> fx.GraphModule:
    """The model as a graph over the same submodules and parameters; `model` is not changed.

    Every submodule and parameter keeps its name, those that the graph does not use included.
    Functional dropout and relu become modules, so that train and eval mode go on working and
    techniques can replace them. What only training computes, such as an auxiliary classifier's
    logits, is in the graph too, and is not among the outputs in eval mode.

    Raises:
        TracingError: The forward pass depends on values, or computes in eval mode what it does not
            compute in train mode.
    """
    with modes_kept(model), _without_constants(model):
        eval_graph = _traced(model.eval())
    with _without_constants(model):
        with modes_kept(model):
            graph = _traced(model.train())
        if _twins(graph, eval_graph) is None and _layers(graph) == _layers(eval_graph):
            warnings.warn(
                f"{type(model).__name__} computes something between its layers in train mode "
                f"alone, such as random depth. Only modules can be switched, so it is left out.",
                stacklevel=2,
            )
            with modes_kept(model):
                graph = _traced(model.eval())
        return _merged(model, graph, eval_graph)


def _layers(graph: fx.Graph) -> list[str]:
    """What a graph calls of the model's own, in order."""
    return [str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")]


def _merged(model: nn.Module, graph: fx.Graph, eval_graph: fx.Graph) -> fx.GraphModule:
    """A module that computes `graph` in train mode and `eval_graph` in eval mode."""
    twins = _twins(graph, eval_graph)
    if twins is None:
        raise TracingError(
            f"{type(model).__name__} computes differently in train and eval mode, beyond dropout, "
            f"batch norm and additional outputs in training"
        )
    by_mode = _free_name("by_mode", model)
    _choose_output(graph, eval_graph, twins, by_mode)
    created = _functional_modules(graph, twins, model)
    _choose_training(graph, twins, by_mode)
    if any(node.target == by_mode for node in graph.nodes):
        created[by_mode] = ByMode()
    for name, module in created.items():
        model.add_module(name, module)
    try:
        traced = fx.GraphModule(model, graph)
    finally:
        for name in created:
            delattr(model, name)
    _adopt_unused(traced, model)
    make_layers_of_calls(traced)
    own = dict(model.named_modules())
    for name, module in traced.named_modules():
        module.training = own[name].training if name in own else model.training
    return traced


@contextmanager
def _without_constants(model: nn.Module) -> Iterator[None]:
    """Takes away from a model the tensors that a trace has left there for its graph."""
    before = set(vars(model))
    try:
        yield
    finally:
        for name in set(vars(model)) - before:
            delattr(model, name)


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
    check_example_inputs(example_inputs)
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
        name = _layer_behind(source, modules)
        if name is None or called.count(node.target) != 1 or called.count(name) > 1:
            continue
        layer = modules[name]
        alone = owners[id(layer.weight)] == 1
        flat = not isinstance(layer, nn.Linear) or ranks.get(name) == 2  # noqa: PLR2004
        if alone and flat and _takes_a_fold(layer):
            pairs.append((name, str(node.target)))
    return pairs


def _layer_behind(source: Any, modules: Mapping[str, nn.Module]) -> str | None:
    """The layer whose output a node is and that nothing else reads, by its name."""
    if not isinstance(source, fx.Node) or len(source.users) != 1:
        return None
    if source.op == "call_module":
        return str(source.target)
    call = weighted_call(source)
    return call.owner if call is not None and call.owner in modules else None


def execution_order(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the modules without children, in the order in which the forward pass first calls
    them; those that it does not call are left out.

    Without inputs the order is that of a trace, or else the one in which the model declares them.
    """
    if not example_inputs:
        return _order_without_inputs(model)
    called: dict[str, None] = {}
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.setdefault(name))
        for name, module in model.named_modules()
        if not any(module.children())
    ]
    try:
        with torch.no_grad(), evaluating(model), probes_off(model):
            model(*example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(called)


def _order_without_inputs(model: nn.Module) -> list[str]:
    if not any(model.children()):
        return [""]
    try:
        nodes = _traced(model).nodes
    except TracingError:
        return [name for name, module in model.named_modules() if not any(module.children())]
    return list(dict.fromkeys(str(node.target) for node in nodes if node.op == "call_module"))


def propagate_shapes(traced: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> None:
    """Gives every node its result's dtype and shape (`node.meta["tensor_meta"]`)."""
    with torch.no_grad(), evaluating(traced):
        ShapeProp(traced).propagate(*example_inputs)


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
        with torch.no_grad(), evaluating(model), probes_off(model):
            model(*example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return ranks


def _takes_a_fold(layer: nn.Module) -> bool:
    if layer.weight is None:  # stored as integers already
        return False
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.groups == 1 and not isinstance(layer, Leaf)
    return isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))


def _twins(graph: fx.Graph, eval_graph: fx.Graph) -> dict[fx.Node, fx.Node] | None:
    """For each node of the graph of eval mode, the one of train mode that computes the same.

    The output nodes have none. `None` if another node has none either.
    """
    twins: dict[fx.Node, fx.Node] = {}
    candidates = iter(graph.nodes)
    for node in eval_graph.nodes:
        if node.op == "output":
            break
        wanted = _call(node, twins)
        twin = next((candidate for candidate in candidates if _call(candidate) == wanted), None)
        if twin is None:
            return None
        twins[node] = twin
    return twins


def _call(node: fx.Node, twins: Mapping[fx.Node, fx.Node] | None = None) -> tuple[str, str, str]:
    """What a node does, as text: with which of its inputs' `twins`, not with which `training`."""
    args = node.args[:2] if node.target in _DROPOUTS else node.args
    kwargs = {key: value for key, value in node.kwargs.items() if key != "training"}
    if twins is not None:
        args, kwargs = fx.map_arg((args, kwargs), twins.__getitem__)
    return node.op, str(node.target), f"{args}{kwargs}"


def _choose_output(
    graph: fx.Graph, eval_graph: fx.Graph, twins: Mapping[fx.Node, fx.Node], by_mode: str
) -> None:
    """Lets a graph of train mode give in eval mode what the graph of that mode gives."""
    output, evaluated = graph.output_node(), eval_graph.output_node().args[0]
    evaluated = fx.map_arg(evaluated, twins.__getitem__)
    if str(output.args[0]) != str(evaluated):
        with graph.inserting_before(output):
            output.args = (graph.call_module(by_mode, (output.args[0], evaluated)),)


def _choose_training(graph: fx.Graph, twins: Mapping[fx.Node, fx.Node], by_mode: str) -> None:
    """Lets the argument `training` of calls that are still in `graph` follow the mode."""
    left = set(graph.nodes)
    for evaluated, node in twins.items():
        modes = _training(node), _training(evaluated)
        if node in left and modes[0] != modes[1]:
            with graph.inserting_before(node):
                mode = graph.call_module(by_mode, modes)
            node.args = node.args[:2] if node.target in _DROPOUTS else node.args
            node.kwargs = {**node.kwargs, "training": mode}


def _functional_modules(
    graph: fx.Graph, twins: Mapping[fx.Node, fx.Node], model: nn.Module
) -> dict[str, nn.Module]:
    """Replaces the calls that `_FUNCTIONAL` names by calls of new modules, and returns those.

    Args:
        graph: Traced in train mode; changed.
        twins: Of the nodes traced in eval mode, those of `graph`. Dropout that does not follow its
            mode stays as it is.
        model: Whose names are taken.
    """
    created: dict[str, nn.Module] = {}
    evaluated = {twin: node for node, twin in twins.items()}
    for node in list(graph.nodes):
        if node.op not in ("call_function", "call_method") or node.target not in _FUNCTIONAL:
            continue
        options = {key: value for key, value in node.kwargs.items() if key != "input"}
        if node.target in _DROPOUTS:
            off = node not in evaluated or not _training(evaluated[node])
            if not (_training(node) and off):
                continue
            options.setdefault("p", node.args[1] if len(node.args) > 1 else 0.5)
        name = _free_name(f"{node.name}_module", model)
        created[name] = _FUNCTIONAL[node.target](**options)
        source = node.args[0] if node.args else node.kwargs["input"]
        with graph.inserting_after(node):
            call = graph.call_module(name, (source,))
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    return created


def _training(node: fx.Node) -> Any:
    """A call's `training` argument; true by default, as dropout has it."""
    positional = node.target in _DROPOUTS and len(node.args) > 2  # noqa: PLR2004 (its place)
    return node.args[2] if positional else node.kwargs.get("training", True)


def _free_name(name: str, model: nn.Module) -> str:
    while hasattr(model, name):
        name += "_"
    return name


def _adopt_unused(traced: fx.GraphModule, model: nn.Module) -> None:
    """Submodules and parameters that the graph does not call stay, with their names; what the
    model's state_dict did not hold stays out of it.
    """
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
    saved = model.state_dict().keys()
    for name, buffer in list(traced.named_buffers()):
        path, _, leaf = name.rpartition(".")
        if name not in saved:
            traced.get_submodule(path).register_buffer(leaf, buffer, persistent=False)


def _outermost_missing(model: nn.Module, traced: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    present = {name for name, _ in traced.named_modules(remove_duplicate=False)}
    missing: list[str] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if name in present or any(name.startswith(f"{outer}.") for outer in missing):
            continue
        missing.append(name)
        yield name, module
