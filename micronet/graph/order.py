"""The order in which a model runs its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from micronet.graph.leaf import probes_off
from micronet.graph.modes import evaluating
from micronet.graph.specialized import TracingError
from micronet.graph.tracing import trace


def execution_order(model: nn.Module, example_inputs: tuple[Any, ...]) -> list[str]:
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
    names = {name for name, _ in model.named_modules()}
    try:
        nodes = [node for node in trace(model).graph.nodes if str(node.target) in names]
    except TracingError:
        return [name for name, module in model.named_modules() if not any(module.children())]
    return list(dict.fromkeys(str(node.target) for node in nodes if node.op == "call_module"))
