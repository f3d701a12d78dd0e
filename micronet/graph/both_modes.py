"""One graph for train and eval mode, made of a graph for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import fx, nn

from micronet.graph.specialized import TracingError

_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout}
_TRAINING_AT: dict[Any, int] = {**dict.fromkeys(_DROPOUTS, 2), F.batch_norm: 5}
"""The place of `training` among the arguments of functions that take it there."""
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


def merge(model: nn.Module, graph: fx.Graph, eval_graph: fx.Graph) -> dict[str, nn.Module]:
    """Lets a graph of train mode give in eval mode what the graph of that mode gives.

    What only training computes, such as an auxiliary classifier's logits, stays in the graph.

    Args:
        model: Whose graphs they are.
        graph: Of train mode; changed.
        eval_graph: Of eval mode.

    Returns:
        New modules that the graph calls, by name.

    Raises:
        TracingError: Eval mode computes something that train mode does not.
    """
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
    return created


def can_merge(graph: fx.Graph, eval_graph: fx.Graph) -> bool:
    """Whether everything that eval mode computes is part of what train mode computes."""
    return _twins(graph, eval_graph) is not None


def modules_of_two_minds(model: nn.Module, graph: fx.Graph, eval_graph: fx.Graph) -> set[str]:
    """Names of modules without children whose operations differ between train and eval mode.

    Empty where the two graphs can be merged as they are.
    """
    if can_merge(graph, eval_graph):
        return set()
    by_module, eval_by_module = _calls_by_module(graph), _calls_by_module(eval_graph)
    return {
        name
        for name in {*by_module, *eval_by_module}
        if name
        and by_module.get(name) != eval_by_module.get(name)
        and not any(model.get_submodule(name).children())
    }


def _calls_by_module(graph: fx.Graph) -> dict[str, list[tuple[str, str]]]:
    calls: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for node in graph.nodes:
        stack = list(node.meta.get("nn_module_stack", {}).values())
        if stack and node.op != "get_attr":
            calls[stack[-1][0]].append((node.op, str(node.target)))
    return calls


def layers(graph: fx.Graph) -> list[str]:
    """What a graph calls of the model's own, in order."""
    return [str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")]


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
    at = _TRAINING_AT.get(node.target, len(node.args))
    args = node.args[:at] + node.args[at + 1 :]
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
            at = _TRAINING_AT.get(node.target, len(node.args))
            if at < len(node.args):
                node.args = (*node.args[:at], mode, *node.args[at + 1 :])
            else:
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
        if "changes_views" in node.meta:
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
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    return created


def _training(node: fx.Node) -> Any:
    """A call's `training` argument; true by default, as dropout has it."""
    at = _TRAINING_AT.get(node.target, len(node.args))
    return node.args[at] if at < len(node.args) else node.kwargs.get("training", True)


def _free_name(name: str, model: nn.Module) -> str:
    while hasattr(model, name):
        name += "_"
    return name
