"""Proxies that know the value they stand for, so that plain Python can be followed.

A model's code may ask a proxy for its shape, unpack it, loop over its parts, compare sizes, or test
what it is; it gets the answer of the example inputs. Sizes stay proxies as long as the code only
computes with them, so they follow the batch. Where the code needs the number itself, the graph
takes down what it was, and refuses other inputs (`specialized.require`).
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, fx
from torch.fx.proxy import Attribute

from micronet.graph.specialized import TracingError

_OF_AUTOGRAD = {
    "requires_grad",
    "grad",
    "grad_fn",
    "is_leaf",
    "retain_grad",
    "backward",
    "_version",
}
_SIZES = {"shape", "ndim", "size", "dim", "numel", "ndimension", "nelement"}


class Values(Protocol):
    """What a proxy asks of its tracer."""

    values: dict[fx.Node, Any]

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any: ...

    def require(self, proxy: Any) -> Any: ...

    def evaluating(self) -> AbstractContextManager[None]: ...


class ValueProxy(fx.Proxy):
    """Stands for a value in a graph: a tensor, a number, or a container of them."""

    tracer: Values  # type: ignore[assignment]

    @property
    def value(self) -> Any:
        return self.tracer.values[self.node]

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What `isinstance` is told; torch's own code must not take a proxy for a tensor."""
        return type(self) if isinstance(self.value, Tensor) else type(self.value)

    def __getattr__(self, name: str) -> Any:
        if name in _OF_AUTOGRAD:
            raise TracingError(f"it asks for {name!r}, which differs between training and serving")
        value = self.value
        if isinstance(value, Mapping) and name in _OF_MAPPINGS:
            return _OF_MAPPINGS[name](self)
        with self.tracer.evaluating():
            attribute = getattr(value, name)
        if self.node.op == "get_attr" and name in _SIZES:
            return attribute  # a parameter's are the same for all inputs
        if callable(attribute):
            return Attribute(self, name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, Mapping):
            return iter(list(self.value))
        return iter([operator.getitem(self, index) for index in range(len(self))])

    def __len__(self) -> int:
        with self.tracer.evaluating():
            length = len(self.value)
        if isinstance(self.value, Tensor):
            self.tracer.require(self.tracer.create_proxy("call_function", len, (self,), {}))
        return length

    def __contains__(self, other: Any) -> bool:
        if isinstance(self.value, Mapping):
            return other in self.value
        return any(each is other or bool(each == other) for each in self)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def __bool__(self) -> bool:
        if isinstance(self.value, (bool, int, float, complex)):
            return bool(self.tracer.require(self))
        if isinstance(self.value, Tensor):
            raise TracingError("its way depends on the values of a tensor")
        return bool(self.value)

    def __int__(self) -> int:
        return int(self._number())

    def __index__(self) -> int:
        return operator.index(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __complex__(self) -> complex:
        return complex(self._number())

    def _number(self) -> Any:
        if isinstance(self.value, Tensor):
            raise TracingError("it takes a number out of a tensor")
        return self.tracer.require(self)

    def __hash__(self) -> int:
        if isinstance(self.value, Tensor):
            return object.__hash__(self)
        return hash(self.tracer.require(self))

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __str__(self) -> str:
        return str(self.value)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TracingError("it leaves torch for numpy")

    def __deepcopy__(self, _memo: Any) -> Any:
        return self.tracer.create_proxy("call_function", copy.deepcopy, (self,), {})

    def __copy__(self) -> Any:
        return self.tracer.create_proxy("call_function", copy.copy, (self,), {})

    def __ceil__(self) -> Any:
        return self.tracer.create_proxy("call_function", math.ceil, (self,), {})

    def __floor__(self) -> Any:
        return self.tracer.create_proxy("call_function", math.floor, (self,), {})

    def __trunc__(self) -> Any:
        return self.tracer.create_proxy("call_function", math.trunc, (self,), {})

    def __round__(self, digits: int | None = None) -> Any:
        arguments = (self,) if digits is None else (self, digits)
        return self.tracer.create_proxy("call_function", round, arguments, {})


_OF_MAPPINGS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "keys": lambda proxy: lambda: list(proxy),
    "values": lambda proxy: lambda: [proxy[key] for key in proxy],
    "items": lambda proxy: lambda: [(key, proxy[key]) for key in proxy],
    "get": lambda proxy: lambda key, default=None: proxy[key] if key in proxy.value else default,
}


def _in_place(name: str) -> Callable[[Any, Any], Any]:
    """`x += y` changes a tensor itself, and whoever else holds it sees that."""
    changed, fresh = getattr(operator, f"i{name}"), getattr(operator, f"__{name}__")

    def method(self: Any, other: Any) -> Any:
        target = changed if isinstance(self.value, Tensor) else fresh
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
    setattr(ValueProxy, f"__i{_name}__", _in_place(_name))


def is_instance(value: Any, kinds: Any) -> bool:
    """What a model's code is told of a proxy that stands for a tensor."""
    return isinstance(value.value if type(value) is ValueProxy else value, kinds)


def is_plain(value: Any) -> bool:
    """Whether code may have a value itself, since it is the same for all inputs."""
    return value is None or isinstance(value, (str, torch.memory_format, torch.layout))
