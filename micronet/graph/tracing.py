"""Following models: as a whole where that can be, else in the largest parts that can be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from micronet.graph.both_modes import can_merge, layers, merge, modules_of_two_minds
from micronet.graph.example_inputs import check_example_inputs
from micronet.graph.followed import Followed, give_graph, shallow_copy
from micronet.graph.frozen_norms import name_frozen_norms
from micronet.graph.layers_of_calls import make_layers_of_calls
from micronet.graph.leaf import Leaf, probes_off
from micronet.graph.modes import evaluating, modes_kept
from micronet.graph.specialized import TracingError
from micronet.graph.tracer import Tracer


def trace(model: nn.Module, example_inputs: tuple[Any, ...] = ()) -> Followed:
    """The model as a graph over the same layers and tensors; `model` is not changed.

    The result is an instance of the model's own class: attributes, methods and names stay, and its
    forward is a graph. Functional dropout and relu become modules, so that train and eval mode go
    on working and techniques can replace them; so do convolutions, linear layers and batch norms
    that a module computes with its own parameters. What only training computes, such as an
    auxiliary classifier's logits, is in the graph too, and is not among the outputs in eval mode.

    Args:
        model: In any mode.
        example_inputs: Positional arguments of its forward, batch first. Without them only code
            that asks nothing of its inputs can be followed.

    Raises:
        TracingError: The forward pass depends on values, changes the model, or computes in eval
            mode what it does not compute in train mode.
    """
    check_example_inputs(example_inputs)
    _call_once(model, example_inputs)
    copied = shallow_copy(model)
    name_frozen_norms(copied)
    return _with_graph(copied, example_inputs or None)


def follow(model: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, str]:
    """Gives the largest parts of a model that can be followed graphs for forwards, in place.

    That is the model itself, or else those of its submodules that can be followed, each by what
    it gets when the model runs on the example inputs.

    Args:
        model: In any mode.
        example_inputs: Positional arguments of its forward, batch first.

    Returns:
        For each module that could not be followed, the empty name standing for the model, why.
    """
    check_example_inputs(example_inputs)
    _call_once(model, example_inputs)
    return _follow(model, example_inputs)


def _follow(model: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, str]:
    name_frozen_norms(model)
    inputs = _Inputs(model, example_inputs)
    reasons: dict[str, str] = {}
    waiting = [""]
    while waiting:
        name = waiting.pop(0)
        module = model.get_submodule(name)
        if name and (isinstance(module, Leaf) or not any(module.children())):
            continue
        try:
            followed = _with_graph(module, inputs.of(name))
        except TracingError as error:
            reasons[name] = str(error)
            inside = (child for child, _ in module.named_children())
        else:
            opaque = followed.meta["opaque"]
            reasons.update({f"{name}.{inner}".lstrip("."): why for inner, why in opaque.items()})
            inside = (
                f"{inner}.{child}"
                for inner in opaque
                for child, _ in followed.get_submodule(inner).named_children()
            )
        waiting += [f"{name}.{child}".lstrip(".") for child in inside]
    return reasons


def trace_parts(
    model: nn.Module, example_inputs: tuple[Any, ...] = ()
) -> tuple[nn.Module, dict[str, str]]:
    """As `follow`, but `model` is not changed: the same layers and tensors in other modules.

    A model that has graphs already is given as it is. Without example inputs it is followed as a
    whole or not at all.
    """
    check_example_inputs(example_inputs)
    if any(True for _ in graphs(model)):
        return model, {}
    _call_once(model, example_inputs)
    copied = shallow_copy(model)
    if example_inputs:
        return copied, _follow(copied, example_inputs)
    name_frozen_norms(copied)
    try:
        return _with_graph(copied, None), {}
    except TracingError as error:
        return copied, {"": str(error)}


def _call_once(model: nn.Module, example_inputs: tuple[Any, ...]) -> None:
    """Some models complete themselves at their first call, which must not be that of a tracer."""
    if not example_inputs:
        return
    inputs = tree_map_only(Tensor, torch.clone, example_inputs)  # it may work in place
    with (
        suppress(Exception),  # following it will tell
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        evaluating(model),
        probes_off(model),
    ):
        model(*inputs)


def graphs(model: nn.Module) -> Iterator[tuple[str, fx.GraphModule]]:
    """Every part of a model that has a graph for its forward, with its name."""
    for name, module in model.named_modules():
        if isinstance(module, fx.GraphModule):
            yield name, module


class _Inputs:
    """What each submodule gets when a model runs; it runs once somebody asks."""

    def __init__(self, model: nn.Module, example_inputs: tuple[Any, ...]) -> None:
        self._model, self._example_inputs = model, example_inputs
        self._seen: dict[str, tuple[Any, ...]] | None = None

    def of(self, name: str) -> tuple[Any, ...]:
        """Raises TracingError for a module that is not called, or with keywords."""
        if not name:
            return self._example_inputs
        if self._seen is None:
            self._seen = self._watched()
        if name not in self._seen:
            raise TracingError("the example inputs do not reach it as positional arguments")
        return self._seen[name]

    def _watched(self) -> dict[str, tuple[Any, ...]]:
        seen: dict[str, tuple[Any, ...]] = {}

        def note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not kwargs:
                seen.setdefault(name, args)

        hooks = [
            module.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: note(name, args, kwargs), with_kwargs=True
            )
            for name, module in self._model.named_modules()
        ]
        try:
            with torch.no_grad(), evaluating(self._model), probes_off(self._model):
                self._model(*self._example_inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return seen


def _with_graph(model: nn.Module, example_inputs: tuple[Any, ...] | None) -> Followed:
    """Makes a graph the forward of a model, in place; a model that can't be followed stays."""
    opaque: dict[str, str] = {}
    try:
        with modes_kept(model):
            graph, eval_graph = _graphs_of(model, example_inputs, opaque)
        followed = _assembled(model, graph, merge(model, graph, eval_graph))
    except TracingError:
        _remove_constants(model)
        raise
    followed.meta["opaque"] = opaque
    return followed


def _graphs_of(
    model: nn.Module, example_inputs: tuple[Any, ...] | None, opaque: dict[str, str]
) -> tuple[fx.Graph, fx.Graph]:
    """Of train mode and of eval mode; constants of the first stay in the model."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def followed(*, training: bool) -> fx.Graph:
        _remove_constants(model)
        return Tracer(example_inputs, opaque, fake).follow(model.train(training))

    while True:
        eval_graph, known = followed(training=False), len(opaque)
        graph = followed(training=True)
        differing = modules_of_two_minds(model, graph, eval_graph)
        opaque.update(dict.fromkeys(differing, "it computes differently in train and eval mode"))
        if len(opaque) == known:
            break
    if can_merge(graph, eval_graph) or layers(graph) != layers(eval_graph):
        return graph, eval_graph
    warnings.warn(
        f"{type(model).__name__} computes something between its layers in train mode alone, such "
        f"as random depth. Only modules can be switched, so it is left out.",
        stacklevel=5,
    )
    return followed(training=False), eval_graph


def _assembled(model: nn.Module, graph: fx.Graph, created: dict[str, nn.Module]) -> Followed:
    followed = give_graph(model, graph)
    for name, module in created.items():
        followed.add_module(name, module.train(model.training))
    for name in _constants(model):
        constant = vars(model).pop(name)
        followed.register_buffer(name, constant, persistent=False)
    make_layers_of_calls(followed)
    return followed


def _constants(model: nn.Module) -> list[str]:
    """Names of the tensors that a trace has left in a model for its graph."""
    return [name for name in vars(model) if name.startswith("_tensor_constant")]


def _remove_constants(model: nn.Module) -> None:
    for name in _constants(model):
        delattr(model, name)
