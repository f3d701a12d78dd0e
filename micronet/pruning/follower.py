"""Which channel each number of an activation comes from, and what is known of the channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from micronet.pruning.labels import along, compact, distinct, distinct_pairs, narrow

Ints: TypeAlias = NDArray[np.int64]
Key: TypeAlias = tuple[str, str | int]

WEIGHTED = (_ConvNd, nn.Linear)
"""Layers that give channels of their own."""
_LAYERS = (*WEIGHTED, _NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.PReLU)
_OF_LAYERS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@attrs.frozen(eq=False)
class Side:
    """The channels of a layer's outputs or inputs, numbered through the whole model.

    Args:
        names: Of the modules that hold the weight, or of a parameter that no layer holds.
        layer: The first of these modules, or the parameter.
        role: "outputs", "inputs", or the parameter's dimension.
        first: Number of the first channel; 0 stands for no channel.
        size: How many there are.
        blocks: How many equal parts the layer divides them into.
    """

    names: tuple[str, ...]
    layer: Any
    role: str | int
    first: int
    size: int
    blocks: int

    @property
    def key(self) -> Key:
        return self.names[0], self.role

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The part of `values`, one for each channel of the model, that is about this side."""
        return values[self.first : self.first + self.size]


@attrs.define
class Trace:
    """What a forward pass tells about channels.

    Args:
        sides: By their key.
        channels: One more than the highest number of a channel.
        couplings: Pairs of channels that live or die together [2, pairs].
        places: Where else than in a layer a channel's place counts, as in an attention head:
            (channel, operation, place) [rows, 3].
        locked: For each channel that must stay, why.
        positions: For each weighted layer, by its name, how often it computes all its outputs for
            one image.
        depthwise: Names of the convolutions that have a group for each input channel.
        standardised: Names of those whose weight is computed filter by filter, as by weight
            standardisation: what one input weighs depends on the others.
        equals: Pairs of channels along two axes, or along two parts of one, whose numbers the code
            takes for each other.
        factors: The numbers that are multiplied into activations, added to them or the like, by
            the module at work and their place among its own; and the channels of the activation.
        counters: For each attribute that counts channels, by name: its value, and the channels at
            all places of an activation that is divided by it, 0 for none.
    """

    sides: dict[Key, Side] = attrs.field(factory=dict)
    channels: int = 1
    couplings: list[Ints] = attrs.field(factory=list)
    places: list[Ints] = attrs.field(factory=list)
    locked: dict[int, str] = attrs.field(factory=dict)
    positions: dict[str, float] = attrs.field(factory=dict)
    depthwise: set[str] = attrs.field(factory=set)
    standardised: set[str] = attrs.field(factory=set)
    equals: list[tuple[Ints, Ints]] = attrs.field(factory=list)
    factors: dict[tuple[str, int], tuple[float, Ints]] = attrs.field(factory=dict)
    counters: dict[str, list[tuple[int, Ints]]] = attrs.field(factory=dict)


@attrs.frozen
class View:
    """A parameter or buffer seen through transpositions and views.

    Args:
        tensor: The parameter or buffer.
        axes: For each dimension of the view, the tensor's; `None` where it has none.
        computed: Whether its numbers are others by now, as those of a standardised weight.
    """

    tensor: Tensor
    axes: tuple[int | None, ...]
    computed: bool = False

    @property
    def whole(self) -> bool:
        """Whether its dimensions are the tensor's own."""
        return self.axes == tuple(range(self.tensor.dim()))


class Follower:
    """The labels of a forward pass so far; `operations` says what each operation does to them.

    Args:
        model: What runs.
        found: What is known of its channels.
        working: The modules at work, the innermost last.
    """

    def __init__(self, model: nn.Module, found: Trace, working: list[nn.Module]) -> None:
        self.found, self.working = found, working
        self.views = WeakTensorKeyDictionary()
        self.products = 0
        self.arguments: Any = ()
        self.watched: Callable[[Tensor], None] | None = None
        self._factors: dict[str, int] = {}
        self._labels = WeakTensorKeyDictionary()
        self._names = {module: name for name, module in model.named_modules()}
        self._layers: dict[int, tuple[nn.Module, list[str]]] = {}
        self._vectors: dict[int, nn.Module] = {}
        self._bare: dict[int, tuple[nn.Module, list[str]]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            if isinstance(module, _LAYERS):
                self._layers.setdefault(id(key_of(module)), (module, []))[1].append(name)
            for attribute, tensor in own:
                if isinstance(module, _LAYERS) and attribute in _OF_LAYERS:
                    if tensor.dim() == 1:
                        self._vectors.setdefault(id(tensor), module)
                elif tensor.is_floating_point():
                    place = f"{name}.{attribute}".lstrip(".")
                    self._bare.setdefault(id(tensor), (module, []))[1].append(place)

    def layers_at_work(self) -> tuple[str, ...]:
        """The layers whose channels went into the last operation."""
        leaves = tree_leaves(self.arguments)
        tensors = [t for t in leaves if isinstance(t, Tensor) and id(t) not in self._vectors]
        found = [labels for tensor in tensors if (labels := self.labels_of(tensor)) is not None]
        numbers = {number for labels in found for number in distinct(narrow(labels)[0]).tolist()}
        return tuple(
            side.names[0]
            for side in self.found.sides.values()
            if not numbers.isdisjoint(range(side.first, side.first + side.size))
        )

    def module_at_work(self) -> str:
        """The innermost module at work, in words."""
        module = self.working[-1]
        name = self._names.get(module)
        return f"{type(module).__name__} {name!r}" if name else type(module).__name__

    def is_layer(self, weight: Any) -> bool:
        """Whether something is the weight, or takes the place of one, of a layer."""
        return id(weight) in self._layers

    def name_of(self, weight: Any) -> str:
        """The first name of the layer of a weight."""
        return self._layers[id(weight)][1][0]

    def layer_of(self, weight: Any) -> nn.Module:
        """The first layer of a weight."""
        return self._layers[id(weight)][0]

    def owner_of(self, tensor: Any) -> nn.Module | None:
        """The module of a parameter or buffer that no layer holds; `None` for any other tensor."""
        return self._bare[id(tensor)][0] if id(tensor) in self._bare else None

    def side(self, weight: Any, role: str | int, size: int) -> Side:
        """A side of the layer of a weight, or a dimension of a tensor that no layer holds."""
        layer: Any
        if self.is_layer(weight):
            layer, names = self._layers[id(weight)]
            blocks = 1 if names[0] in self.found.depthwise else _blocks_of(layer)
        else:
            layer, names, blocks = weight, self._bare[id(weight)][1], 1
        key = (names[0], role)
        if key not in self.found.sides:
            first = self.found.channels
            self.found.sides[key] = Side(tuple(names), layer, role, first, size, blocks)
            self.found.channels += size
        return self.found.sides[key]

    def label(self, tensor: Tensor, labels: Tensor) -> None:
        """Says which channels lie in an activation. One without regions has those of one."""
        labels = compact(labels.expand([max(size, 1) for size in tensor.shape]))
        self._labels[tensor] = labels
        if self.watched is not None:
            self.watched(labels)

    def labels_of(self, tensor: Tensor) -> Tensor | None:
        """An activation's labels. Parameters of one dimension, such as a class token, have some."""
        if tensor not in self._labels:
            if (layer := self._vectors.get(id(tensor))) is not None:
                self.give(tensor, 0, self.side(key_of(layer), "outputs", len(tensor)))
            elif self.owner_of(tensor) is not None:
                long = [axis for axis, size in enumerate(tensor.shape) if size > 1]
                if len(long) == 1:
                    size = tensor.shape[long[0]]
                    self.give(tensor, long[0], self.side(tensor, long[0], size))
        found: Tensor | None = self._labels.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def view_of(self, tensor: Any) -> View | None:
        """How a tensor shows a parameter or buffer; `None` where it shows none."""
        if self.is_layer(tensor) or self.owner_of(tensor) is not None:
            return View(tensor, tuple(range(tensor.dim())))
        found: View | None = self.views.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def lock(self, tensor: Tensor, reason: str) -> None:
        """The channels of an activation must stay."""
        labels = self.labels_of(tensor)
        if labels is not None:
            self.lock_labels(labels, reason)

    def lock_labels(self, labels: Tensor, reason: str) -> None:
        for label in distinct(narrow(labels)[0]).tolist():
            self.found.locked.setdefault(label, reason)

    def lock_side(self, side: Side, reason: str) -> None:
        for label in range(side.first, side.first + side.size):
            self.found.locked.setdefault(label, reason)

    def couple(self, one: Tensor, other: Tensor) -> None:
        """Couples labels at the same places; 0 couples nothing."""
        pairs = distinct_pairs(*torch.broadcast_tensors(one, other))  # type: ignore[no-untyped-call]
        pairs = pairs[:, (pairs != 0).all(0) & (pairs[0] != pairs[1])]
        self.found.couplings.append(pairs.numpy())

    def note_factors(self, numbers: Sequence[float], tensors: Sequence[Tensor]) -> None:
        """Numbers that an operation on each element of activations takes."""
        if not numbers:
            return
        known = [labels for tensor in tensors if (labels := self.labels_of(tensor)) is not None]
        channels = np.concatenate(
            [np.zeros(0, np.int64), *(distinct(narrow(labels)[0]).numpy() for labels in known)]
        )
        name = self._names.get(self.working[-1], "")
        for number in numbers:
            self._factors[name] = self._factors.get(name, 0) + 1
            self.found.factors[name, self._factors[name]] = number, channels

    def equal(self, one: Tensor, others: Sequence[Tensor]) -> None:
        """There must be as many channels among some labels as among each of others."""
        for other in others:
            self.found.equals.append((distinct(one).numpy(), distinct(other).numpy()))

    def read(self, labels: Tensor | None, axis: int, side: Side) -> None:
        """Couples labels along an axis with the channels of a side."""
        if labels is not None:
            axis %= labels.dim()
            (labels,) = narrow(labels, but=axis)
            self.couple(along(axis, side.first, side.size, labels.shape), labels)

    def give(self, out: Tensor, axis: int, side: Side) -> None:
        """Labels an activation, along an axis, with the channels of a side."""
        self.label(out, along(axis, side.first, side.size, out.shape))


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer whose channels are known."""
    return isinstance(module, _LAYERS)


def key_of(layer: nn.Module) -> Any:
    """What tells a layer: its weight, what takes the place of one, or, without any, itself."""
    for name in ("weight", "running_mean"):
        if (tensor := getattr(layer, name, None)) is not None:
            return tensor
    return layer


def _blocks_of(layer: nn.Module) -> int:
    """How many equal parts a layer divides its channels into."""
    if isinstance(layer, _ConvNd):
        return layer.groups
    return layer.num_groups if isinstance(layer, nn.GroupNorm) else 1
