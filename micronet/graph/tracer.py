"""Follows a model's forward pass on example inputs that hold shapes and no numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.immutable_collections import immutable_dict
from torch.fx.passes.shape_prop import TensorMetadata, _extract_tensor_metadata
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_any, tree_map, tree_map_only

from micronet.errors import describe_error
from micronet.graph.leaf import Leaf, probes_off
from micronet.graph.proxies import ValueProxy, is_instance, is_plain
from micronet.graph.specialized import TracingError, changed_by, place_in_code, require
from micronet.graph.surroundings import (
    factories_followed,
    no_side_effects,
    runs_code_of,
    scripts_followed,
    untouched,
)


class Tracer(fx.Tracer):
    """Makes a graph of a forward pass; `values` holds what each node gave.

    Modules of torch and those marked as `Leaf` are single operations. So is a module whose own
    code can't be followed, or that has hooks of the user's: it stays as it is, with its name and
    the reason in `opaque`.

    Args:
        example_inputs: Positional arguments of the forward, pytrees of tensors; `None` if unknown,
            in which case only code that asks nothing of its inputs can be followed.
        opaque: Names of modules that are single operations, and why; more are added.
        fake: Makes tensors of shapes alone.
    """

    proxy_buffer_attributes = True

    def __init__(
        self, example_inputs: tuple[Any, ...] | None, opaque: dict[str, str], fake: FakeTensorMode
    ) -> None:
        super().__init__(autowrap_functions=(require,))
        self.example_inputs = example_inputs
        self.opaque = opaque
        self.values: dict[fx.Node, Any] = {}
        self._fake = fake
        self.is_evaluating = False
        self._attributes: dict[int, fx.Proxy] = {}
        self._moved: list[tuple[fx.Proxy, fx.Node]] = []
        self._required: set[tuple[fx.Node, str]] = set()
        self._proxies: list[ValueProxy] = []
        self._answering: list[dict[str, Any]] = []

    def follow(self, model: nn.Module) -> fx.Graph:
        """The graph of the model's forward in its present mode.

        Raises:
            TracingError: It can't be followed.
        """
        if "forward" in vars(model):
            raise TracingError(
                f"the forward of {type(model).__name__} was replaced on the instance"
            )
        self.root = model
        self._answer_isinstance(model)
        self._names = {id(t): name for name, t in model.named_parameters(remove_duplicate=False)}
        self._names |= {id(t): name for name, t in model.named_buffers(remove_duplicate=False)}
        members = {id(module) for module in model.modules()}
        try:
            with (
                torch.enable_grad(),
                probes_off(model),
                factories_followed(self),
                scripts_followed(),
                no_side_effects(self, members),
            ):
                self._state = _state_of_torch()
                graph = super().trace(model)
        except TracingError as error:
            raise TracingError(f"{type(model).__name__} can't be followed: {error}") from error
        except fx.proxy.TraceError as error:
            raise TracingError(
                f"{type(model).__name__} can't be followed: its way depends on its inputs, and no "
                f"example inputs were given"
            ) from error
        except Exception as error:  # whatever the model's code raises on a proxy
            raise TracingError(
                f"{type(model).__name__} can't be followed: {describe_error(error)}"
            ) from error
        finally:
            for names in self._answering:
                del names["isinstance"]
        self._forget_unread_numbers(graph)
        for node, value in self.values.items():
            if tree_any(lambda leaf: isinstance(leaf, Tensor), value):
                node.meta["tensor_meta"] = tree_map(_metadata, value)
        return graph

    def _forget_unread_numbers(self, graph: fx.Graph) -> None:
        for node in reversed(list(graph.nodes)):
            number = isinstance(self.values.get(node), (bool, int, float, tuple, torch.device))
            if number and not node.users and node.op.startswith("call_f"):
                graph.erase_node(node)
                del self.values[node]

    # What a call gives.

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *_: Any, **__: Any
    ) -> Any:
        """The proxy of a new node; the value itself where it is the same for all inputs."""
        if kind not in ("placeholder", "get_attr") and self._state != _state_of_torch():
            raise TracingError(
                "it runs a part without gradients, under autocast, or as a custom autograd function"
            )
        if self.example_inputs is None:
            return super().create_proxy(kind, target, args, kwargs)
        before = _versions(args, kwargs)
        value = self._value(kind, target, args, kwargs)
        changed = [p for p, version in before if p.value._version != version]  # noqa: SLF001
        if is_plain(value) and not changed and target is not require:
            return value
        if any(_is_counter(p.node, self.root) for p in changed):
            return args[0]  # batch norms count batches themselves
        memory = {_memory(proxy.value) for proxy in changed}
        if changed and any(_memory(self.values[own]) in memory for own in self._own_tensors()):
            raise TracingError("it changes a tensor of its own as it runs")
        node = super().create_proxy(kind, target, args, kwargs).node
        if changed:
            self._move_readers(node, value, memory)
        self.values[node] = value
        return value if is_plain(value) else self._new_proxy(node)

    def _own_tensors(self) -> list[fx.Node]:
        return [node for node in self.values if node.op == "get_attr"]

    def _new_proxy(self, node: fx.Node) -> ValueProxy:
        proxy = ValueProxy(node, self)
        self._proxies.append(proxy)
        return proxy

    def _move_readers(self, node: fx.Node, value: Any, memory: set[int]) -> None:
        """Whoever reads a tensor that a node changed in place reads what the node made of it.

        Views of the tensor are changed too: they stay what they are, as of after the node.
        """
        for old, tensor in list(self.values.items()):
            if not isinstance(tensor, Tensor) or _memory(tensor) not in memory:
                continue
            new = node
            if tensor is not value:
                new = self.create_node("call_function", changed_by, (old, node), {})
                self.values[new] = tensor
                node.meta["changes_views"] = True
            for proxy in self._proxies:
                if proxy.node is old:
                    self._moved.append((proxy, old))
                    proxy.node = new

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = (
            tree_map_only(ValueProxy, lambda proxy: proxy.value, each) for each in (args, kwargs)
        )
        with torch.no_grad(), self._fake, self.evaluating():
            if kind == "get_attr":
                return self._fake.from_tensor(_attribute(self.root, target))
            if kind == "call_module":
                module = self.root.get_submodule(target)
                if isinstance(module, _BatchNorm) and runs_code_of(module, "torch.nn."):
                    return torch.empty_like(args[0])  # its own arithmetic takes long
                with untouched(module):
                    return module.forward(*args, **kwargs)
            if kind == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            return target(*args, **kwargs)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Code that runs inside computes a value and is not part of the graph."""
        before, self.is_evaluating = self.is_evaluating, True
        try:
            yield
        finally:
            self.is_evaluating = before

    def require(self, proxy: ValueProxy) -> Any:
        """The value of a proxy on which the model's code depends from here on."""
        value = proxy.value
        if (proxy.node, repr(value)) not in self._required:
            self._required.add((proxy.node, repr(value)))
            self.create_node("call_function", require, (proxy.node, value, place_in_code()), {})
        return value

    # What is followed into.

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if isinstance(module, (Leaf, fx.GraphModule)) or name in self.opaque:
            return True
        if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001
            self.opaque[name] = "it has hooks"
            return True
        childless = not any(module.children())
        return (runs_code_of(module, "torch.nn.") and not isinstance(module, nn.Sequential)) or (
            childless and runs_code_of(module, "torchvision.ops.")
        )

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.is_evaluating:
            return forward(*args, **kwargs)
        try:
            name = self.path_of_module(m)
        except NameError as error:
            raise TracingError(
                f"it calls a {type(m).__name__} that is none of its submodules, as in a plain list "
                f"where an nn.ModuleList should be"
            ) from error
        if self.example_inputs is None or self.is_leaf_module(m, name):
            return super().call_module(m, forward, *_in_order(m, args, kwargs))
        self._answer_isinstance(m)
        last, moved = next(reversed(self.graph.nodes), None), len(self._moved)
        stack = dict(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:  # whatever the module's code raises on a proxy
            self._take_back(last, moved)
            self.module_stack.clear()
            self.module_stack.update(stack)
            self.opaque[name] = describe_error(error)
            return super().call_module(m, forward, args, kwargs)

    def _answer_isinstance(self, module: nn.Module) -> None:
        """Lets a module's code take the proxy of a tensor for one, until the graph is done."""
        names = getattr(inspect.unwrap(type(module).forward), "__globals__", {})
        if "isinstance" not in names and not runs_code_of(module, "torch.nn."):
            names["isinstance"] = is_instance
            self._answering.append(names)

    def _take_back(self, last: fx.Node | None, moved: int) -> None:
        """Forgets every node behind one."""
        while self._moved[moved:]:
            proxy, node = self._moved.pop()
            proxy.node = node
        for node in reversed(list(self.graph.nodes)):
            if node is last:
                break
            self.graph.erase_node(node)
            self.values.pop(node, None)
        alive = set(self.graph.nodes)
        self._attributes = {k: p for k, p in self._attributes.items() if p.node in alive}
        self._required = {(node, text) for node, text in self._required if node in alive}

    # What the model's own tensors and arguments become.

    def getattr(self, attr: str, attr_val: Any, _cache: dict[str, Any]) -> Any:  # noqa: ARG002
        name = self._names.get(id(attr_val)) if isinstance(attr_val, Tensor) else None
        if self.is_evaluating or name is None:
            return attr_val
        if id(attr_val) not in self._attributes:
            self._attributes[id(attr_val)] = self.create_proxy("get_attr", name, (), {})
        return self._attributes[id(attr_val)]

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, fx.Proxy):  # before what its class claims to be
            return a.node
        if isinstance(a, torch.Size):
            return tuple(a)
        if isinstance(a, np.generic):
            return a.item()
        if isinstance(a, dict) and type(a) not in (dict, immutable_dict):
            return self._rebuilt(a)
        return super().create_arg(a)

    def _rebuilt(self, mapping: dict[Any, Any]) -> fx.Node:
        """A node that gives a dictionary of the author's own class, by its items."""
        kind, items = type(mapping), super().create_arg(dict(mapping))
        by_field = is_dataclass(mapping)
        try:
            kind(**mapping) if by_field else kind(dict(mapping))
        except Exception as error:  # its author wants something else
            raise TracingError(f"it gives a {kind.__name__}, which its items don't make") from error
        arguments: Any = ((), items) if by_field else ((items,), {})
        return self.create_node("call_function", kind, *arguments)

    def create_args_for_root(
        self,
        root_fn: Callable[..., Any],
        is_module: bool,  # noqa: ARG002
        concrete_args: Any = None,  # noqa: ARG002
    ) -> tuple[Any, list[Any]]:
        """Placeholders for the example inputs; other arguments keep their defaults."""
        parameters = list(inspect.signature(inspect.unwrap(root_fn)).parameters.values())[1:]
        inputs = self.example_inputs
        if inputs is None:
            inputs = tuple(p for p in parameters if p.default is p.empty and p.kind in _POSITIONAL)
        positional: list[Any] = []
        named: dict[str, Any] = {}
        left = list(inputs)
        for parameter in parameters:
            if parameter.kind is parameter.VAR_POSITIONAL:
                if left:
                    positional.extend(self._placeholder(f"*{parameter.name}", tuple(left)))
                left = []
            elif parameter.kind in _POSITIONAL and left:
                positional.append(self._placeholder(parameter.name, left.pop(0)))
            elif parameter.default is not parameter.empty:
                self._keep_default(parameter)
                named[parameter.name] = parameter.default
            elif parameter.kind is not parameter.VAR_KEYWORD:
                raise TracingError(
                    f"example_inputs hold nothing for its argument {parameter.name!r}"
                )
        if left:
            raise TracingError(
                f"its forward takes {len(positional)} inputs, example_inputs hold {len(inputs)}"
            )
        return (lambda: root_fn(self.root, *positional, **named)), []

    def _placeholder(self, name: str, example: Any) -> Any:
        if self.example_inputs is None:
            return self.create_proxy("placeholder", name, (), {})
        node = self.create_node("placeholder", name, (), {})
        self.values[node] = tree_map_only(Tensor, self._fake.from_tensor, example)
        return self._new_proxy(node)

    def _keep_default(self, parameter: inspect.Parameter) -> None:
        """The graph still takes an argument that was left out, and refuses all but its default."""
        if isinstance(parameter.default, (bool, int, float, str, type(None))):
            node = self.create_node("placeholder", parameter.name, (parameter.default,), {})
            what = f"its argument {parameter.name!r}"
            self.create_node("call_function", require, (node, parameter.default, what), {})


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _in_order(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """A call's arguments, those by name among them as far as forward takes them in order."""
    if not kwargs or not runs_code_of(module, "torch.nn."):
        return args, kwargs
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    return bound.args, bound.kwargs


def _metadata(value: Any) -> TensorMetadata | None:
    return _extract_tensor_metadata(value) if isinstance(value, Tensor) else None


def _versions(*arguments: Any) -> list[tuple[ValueProxy, int]]:
    """The proxies of tensors among a call's arguments, and how often each was changed in place."""
    found: list[tuple[ValueProxy, int]] = []

    def note(proxy: ValueProxy) -> None:
        if isinstance(proxy.value, Tensor):
            found.append((proxy, proxy.value._version))  # noqa: SLF001

    tree_map_only(ValueProxy, note, arguments)
    return found


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001


def _is_counter(node: fx.Node, root: nn.Module) -> bool:
    owner, _, name = str(node.target).rpartition(".")
    if node.op != "get_attr" or name != "num_batches_tracked":
        return False
    module = root.get_submodule(owner)
    return isinstance(module, _BatchNorm) and module.momentum is not None


def _state_of_torch() -> tuple[bool, ...]:
    return (
        torch.is_grad_enabled(),
        *(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")),
    )


def _attribute(root: nn.Module, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    tensor: Tensor = vars(root.get_submodule(owner))["_parameters"].get(leaf)
    return tensor if tensor is not None else vars(root.get_submodule(owner))["_buffers"][leaf]
