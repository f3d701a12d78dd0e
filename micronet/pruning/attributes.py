"""Numbers of channels in the code of a model, such as the width of an attention head.

While a model is followed, the integers among its modules' attributes, and the sizes of activations
along axes that channels lie along, know where they come from. Where an attribute gives a size to
such an axis, as in `x.view(b, n, heads, self.head_dim)`, it counts those channels, and shrinks with
them. Where the size of another activation does, as in `b, n, c = x.shape` and `y.reshape(b, n, c)`,
there must be as many channels in the one as in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeAlias

import attrs
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from micronet.pruning.follower import Follower, is_layer
from micronet.pruning.labels import narrow, parts, varying


@attrs.frozen
class Source:
    """An integer in an attribute.

    Args:
        name: Of the attribute, after its module's, as in "blocks.0.head_dim" or "mix.splits[1]".
        value: What it is in the large model.
    """

    name: str
    value: int


@attrs.frozen(eq=False)
class Width:
    """The size of an axis that channels lie along.

    Args:
        labels: Of the activation.
    """

    labels: Tensor


Sources: TypeAlias = frozenset[Source | Width]


class Sourced(int):
    """An integer that knows which attributes and widths it was computed from."""

    sources: Sources

    def __new__(cls, value: int, sources: Sources) -> Self:
        new = super().__new__(cls, value)
        new.sources = sources
        return new

    def __reduce__(self) -> Any:
        return int, (int(self),)  # a copy, of what a forward pass keeps, knows no source


def _computed(operation: Callable[[int, int], int]) -> Callable[[Sourced, Any], Any]:
    def compute(self: Sourced, other: Any) -> Any:
        value = operation(int(self), int(other)) if isinstance(other, int) else NotImplemented
        if value is NotImplemented:
            return value
        return Sourced(value, self.sources | getattr(other, "sources", frozenset()))

    return compute


for _name in ("__mul__", "__rmul__", "__floordiv__", "__add__", "__radd__", "__sub__"):
    setattr(Sourced, _name, _computed(getattr(int, _name)))


@contextmanager
def sourced(model: nn.Module) -> Iterator[None]:
    """Integers in the attributes of a model's own modules know their source for a while."""
    before: list[tuple[nn.Module, str, Any, Any]] = []
    for name, module in model.named_modules():
        if is_layer(module):
            continue
        for attribute, value in list(vars(module).items()):
            place = f"{name}.{attribute}".lstrip(".")
            if (known := _sourced(place, value)) is not value:
                before.append((module, attribute, value, known))
                vars(module)[attribute] = known
    try:
        yield
    finally:
        for module, attribute, value, known in before:
            if vars(module).get(attribute) is known:
                vars(module)[attribute] = value


def _sourced(place: str, value: Any) -> Any:
    if type(value) is int and value > 1:
        return Sourced(value, frozenset([Source(place, value)]))
    if type(value) in (list, tuple) and value and all(type(each) is int for each in value):
        return type(value)(_sourced(f"{place}[{i}]", each) for i, each in enumerate(value))
    return value


class Counting(TorchFunctionMode):
    """Notes which attributes count channels, which of their numbers the code takes for each other,
    and where their number is part of the function.
    """

    def __init__(self, follower: Follower) -> None:
        super().__init__()
        self.follower = follower

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        attention = func is nn.functional.scaled_dot_product_attention
        if attention and (kwargs or {}).get("scale") is None:
            for tensor in args[:2]:
                self.follower.lock(tensor, "their number scales an attention")
        out = func(*args, **(kwargs or {}))
        if func in (_SHAPE, Tensor.size):
            return self._with_widths(args[0], out, args[1:], kwargs or {})
        sizes = list(_sizes((args, kwargs)))
        if sizes:
            for place, result in enumerate(out if isinstance(out, (tuple, list)) else [out]):
                if isinstance(result, Tensor):
                    self._note(result, sizes, _given(func, args, place))
        return out

    def _note(self, out: Tensor, sizes: list[Sourced], shape: list[Any] | None) -> None:
        labels = self.follower.labels_of(out)
        axes = [] if labels is None else varying(labels)
        if labels is None or not axes:
            return
        # Of axes such as heads and the channels of each, the last one shrinks.
        size = out.shape[axes[-1]]
        given = sizes if shape is None else [shape[axes[-1] % len(shape)]]
        sources = {s for g in given if g == size for s in getattr(g, "sources", ())}
        widths = [source for source in sources if isinstance(source, Width)]
        if len(widths) == 1:
            self.follower.equal(widths[0].labels, parts(labels))
        elif len(sources) == 1 and isinstance(source := sources.pop(), Source):
            places = narrow(labels)[0].flatten().numpy()
            counted = self.follower.found.counters.setdefault(source.name, [])
            counted.append((source.value, places))

    def _with_widths(
        self, tensor: Tensor, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A shape, or one of its sizes, that knows where channels lie."""
        labels = self.follower.labels_of(tensor)
        axes = [] if labels is None else varying(labels)
        if labels is None or len(axes) != 1:
            return out
        sources: Sources = frozenset([Width(narrow(labels)[0])])
        if isinstance(out, tuple):
            sizes: list[int] = list(out)
            sizes[axes[0]] = Sourced(sizes[axes[0]], sources)
            return torch.Size(sizes)
        asked = args[0] if args else kwargs["dim"]
        return Sourced(out, sources) if asked % tensor.dim() == axes[0] else out


_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]


def _given(func: Any, args: tuple[Any, ...], place: int) -> list[Any] | None:
    """The size of each axis of a result, where they are given in order; `None` elsewhere."""
    if func in (Tensor.view, Tensor.reshape, torch.reshape):
        return list(args[1]) if isinstance(args[1], (tuple, list)) else list(args[1:])
    if func in (Tensor.split, torch.split) and isinstance(args[1], (tuple, list)):
        return [args[1][place]]
    return None


def _sizes(tree: Any) -> Iterator[Sourced]:
    """The integers with sources in the arguments of an operation, also where slices end."""
    if isinstance(tree, Sourced):
        yield tree
    elif isinstance(tree, slice):
        yield from _sizes((tree.stop,))
    elif isinstance(tree, (tuple, list)):
        for each in tree:
            yield from _sizes(each)
    elif isinstance(tree, dict):
        yield from _sizes(tuple(tree.values()))
