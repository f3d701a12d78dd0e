"""Which channel each number of an activation comes from, and what is known of the channels."""

from __future__ import annotations

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

from micronet.pruning.labels import along, distinct, distinct_pairs, narrow

Ints: TypeAlias = NDArray[np.int64]
Key: TypeAlias = tuple[str, str | int]

WEIGHTED = (_ConvNd, nn.Linear)
"""Layers that give channels of their own."""
_LAYERS = (*WEIGHTED, _NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.PReLU)


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
    """

    sides: dict[Key, Side] = attrs.field(factory=dict)
    channels: int = 1
    couplings: list[Ints] = attrs.field(factory=list)
    places: list[Ints] = attrs.field(factory=list)
    locked: dict[int, str] = attrs.field(factory=dict)
    positions: dict[str, float] = attrs.field(factory=dict)
    depthwise: set[str] = attrs.field(factory=set)


@attrs.frozen
class View:
    """A parameter seen through transpositions and views.

    Args:
        parameter: The parameter.
        axes: For each dimension of the view, the parameter's; `None` where it has none.
    """

    parameter: nn.Parameter
    axes: tuple[int | None, ...]


class Follower:
    """The labels of a forward pass so far; `operations` says what each operation does to them."""

    def __init__(self, model: nn.Module, found: Trace) -> None:
        self.found = found
        self.labels = WeakTensorKeyDictionary()
        self.views = WeakTensorKeyDictionary()
        self.products = 0
        self.arguments: Any = ()
        self._layers: dict[int, tuple[nn.Module, list[str]]] = {}
        self._bare: dict[int, tuple[nn.Module, str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            if isinstance(module, _LAYERS):
                weight: Any = module.weight
                if weight is None and isinstance(module, _NormBase):
                    weight = module.running_mean
                if weight is not None:
                    self._layers.setdefault(id(weight), (module, []))[1].append(name)
                continue
            for attribute, parameter in module.named_parameters(recurse=False):
                self._bare.setdefault(id(parameter), (module, f"{name}.{attribute}".lstrip(".")))

    def layers_at_work(self) -> tuple[str, ...]:
        """The layers whose channels went into the last operation."""
        tensors = [leaf for leaf in tree_leaves(self.arguments) if isinstance(leaf, Tensor)]
        found = [labels for tensor in tensors if (labels := self.labels_of(tensor)) is not None]
        numbers = {number for labels in found for number in distinct(narrow(labels)[0]).tolist()}
        return tuple(
            side.names[0]
            for side in self.found.sides.values()
            if not numbers.isdisjoint(range(side.first, side.first + side.size))
        )

    def is_layer(self, weight: Any) -> bool:
        """Whether a tensor is the weight, or takes the place of one, of a layer."""
        return id(weight) in self._layers

    def name_of(self, weight: Tensor) -> str:
        """The first name of the layer of a weight."""
        return self._layers[id(weight)][1][0]

    def owner_of(self, parameter: Any) -> nn.Module | None:
        """The module of a parameter that no layer holds; `None` for any other tensor."""
        return self._bare[id(parameter)][0] if id(parameter) in self._bare else None

    def side(self, weight: Tensor, role: str | int, size: int, blocks: int = 1) -> Side:
        """A side of the layer of a weight, or a dimension of a parameter that no layer holds."""
        if self.is_layer(weight):
            layer, names = self._layers[id(weight)]
            owner: Any = layer
        else:
            owner, names = weight, [self._bare[id(weight)][1]]
        key = (names[0], role)
        if key not in self.found.sides:
            first = self.found.channels
            self.found.sides[key] = Side(tuple(names), owner, role, first, size, blocks)
            self.found.channels += size
        return self.found.sides[key]

    def labels_of(self, tensor: Tensor) -> Tensor | None:
        """An activation's labels. A parameter of one dimension, such as a class token, has some."""
        if tensor not in self.labels and self.owner_of(tensor) is not None:
            long = [axis for axis, size in enumerate(tensor.shape) if size > 1]
            if len(long) == 1:
                size = tensor.shape[long[0]]
                self.give(tensor, long[0], self.side(tensor, long[0], size))
        found: Tensor | None = self.labels.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def view_of(self, tensor: Tensor) -> View | None:
        """How a tensor shows a parameter; `None` where it shows none."""
        if self.is_layer(tensor) or self.owner_of(tensor) is not None:
            assert isinstance(tensor, nn.Parameter)
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

    def couple(self, one: Tensor, other: Tensor) -> None:
        """Couples labels at the same places; 0 couples nothing."""
        pairs = distinct_pairs(*torch.broadcast_tensors(one, other))  # type: ignore[no-untyped-call]
        pairs = pairs[:, (pairs != 0).all(0) & (pairs[0] != pairs[1])]
        self.found.couplings.append(pairs.numpy())

    def read(self, labels: Tensor | None, axis: int, side: Side) -> None:
        """Couples labels along an axis with the channels of a side."""
        if labels is not None:
            axis %= labels.dim()
            (labels,) = narrow(labels, but=axis)
            self.couple(along(axis, side.first, side.size, labels.shape), labels)

    def give(self, out: Tensor, axis: int, side: Side) -> None:
        """Labels an activation, along an axis, with the channels of a side."""
        self.labels[out] = along(axis, side.first, side.size, out.shape)
