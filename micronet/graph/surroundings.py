"""What goes on around a model that is followed: who watches, and what must stay as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._pytree import tree_any

from micronet.graph.specialized import TracingError

_FACTORIES = (
    "arange", "as_tensor", "empty", "eye", "full", "linspace", "logspace", "ones", "tensor",
    "zeros",
)  # fmt: skip
_DRAWS = ("normal", "rand", "randint", "randn", "randperm")
"""Make tensors of numbers alone. Where a number is a proxy, or chance is at work, that is an
operation of the graph; else the tensor is a constant."""


class Tracing(Protocol):
    """What is asked of a tracer."""

    is_evaluating: bool

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any: ...


@contextmanager
def factories_followed(tracer: Tracing) -> Iterator[None]:
    """Tensors made of numbers become operations of the graph where those numbers are proxies."""

    def followed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def factory(*args: Any, **kwargs: Any) -> Any:
            follows = name in _DRAWS or tree_any(_is_proxy, (args, kwargs))
            if follows and not tracer.is_evaluating:
                return tracer.create_proxy("call_function", function, args, kwargs)
            return function(*args, **kwargs)

        return factory

    before = {name: getattr(torch, name) for name in (*_FACTORIES, *_DRAWS)}
    try:
        for name, function in before.items():
            setattr(torch, name, followed(name, function))
        yield
    finally:
        for name, function in before.items():
            setattr(torch, name, function)


@contextmanager
def scripts_followed() -> Iterator[None]:
    """A scripted function that is called with proxies is the Python that it was made of."""
    before = torch.jit.ScriptFunction.__call__

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        if not tree_any(_is_proxy, (args, kwargs)):
            return before(function, *args, **kwargs)
        if not hasattr(function, _PYTHON):
            raise TracingError(f"it calls {function.name!r}, which was scripted or traced")
        return getattr(function, _PYTHON)(*args, **kwargs)

    torch.jit.ScriptFunction.__call__ = call  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.jit.ScriptFunction.__call__ = before  # type: ignore[method-assign]


_PYTHON = "_torchdynamo_inline"
"""Where torch.jit.script keeps what it compiled."""


def _is_proxy(value: Any) -> bool:
    return isinstance(value, fx.Proxy)


@contextmanager
def no_side_effects(tracer: Tracing, members: AbstractSet[int]) -> Iterator[None]:
    """A module that changes itself as it runs can't be followed: its graph would not."""
    before = nn.Module.__setattr__

    def setattr_(module: nn.Module, name: str, value: Any) -> None:
        constant = name.startswith("_tensor_constant")  # the tracer's own
        if id(module) in members and not (tracer.is_evaluating or constant):
            raise TracingError(f"its forward sets {name!r}")
        before(module, name, value)

    nn.Module.__setattr__ = setattr_  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.__setattr__ = before  # type: ignore[method-assign]


def runs_code_of(module: nn.Module, package: str) -> bool:
    """Whether a module's forward is defined in a package, and not in a subclass of the user's."""
    forward = getattr(type(module), "forward", None)
    return str(getattr(forward, "__module__", "")).startswith(package)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Runs a module without hooks, on copies of its tensors, and undoes what it sets of its own.

    Fake tensors do not keep it from changing real ones in place, as statistics in train mode.
    """
    if runs_code_of(module, "torch.nn.") and not any(module.children()):
        yield
        return
    before = []
    for each in module.modules():
        own = vars(each)
        before.append((own, dict(own), {name: dict(own[name]) for name in _TABLES}))
        own["_forward_hooks"], own["_forward_pre_hooks"] = {}, {}
        with unset_fake_temporarily():
            for kind in ("_parameters", "_buffers"):
                own[kind].update({name: _copied(tensor) for name, tensor in own[kind].items()})
    try:
        yield
    finally:
        for own, attributes, tables in before:
            own.clear()
            own.update(attributes)
            for name, table in tables.items():
                own[name].clear()
                own[name].update(table)


def _copied(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    copied = tensor.detach().clone()
    learns = tensor.requires_grad
    return nn.Parameter(copied, learns) if isinstance(tensor, nn.Parameter) else copied


_TABLES = ("_parameters", "_buffers", "_modules")
