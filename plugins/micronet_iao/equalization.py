"""Cross-layer equalization: channels that share a scale are brought to similar ranges.

What a layer gives may be divided by s, channel by channel, if the layers that read it multiply by
s. The float model computes the same, and no channel is small on the grid of a large one. With r
the largest magnitude of a channel and w that of the weights that read it, both become sqrt(r w) by

    s = sqrt(r / w)

(Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.1, where r is that of the weights that make the channel; r of activations as in Xiao et
al. 2023, "SmoothQuant", equation 4.)
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from micronet.errors import QuantizationError
from micronet.graph import graphs
from micronet.graph.modes import evaluating
from micronet.quantization import FakeQuantizer, in_mode, weight_of

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_SCALES_THROUGH_MODULES = (
    FakeQuantizer,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
)
_SCALES_THROUGH_CALLS: set[Any] = {
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_max_pool2d,
    F.adaptive_avg_pool2d,
    "contiguous",
}
"""Operations f with f(x / s) = f(x) / s for a positive s of each channel."""
_ADDITIONS: set[Any] = {operator.add, operator.iadd, torch.add, "add", "add_"}
_FLATTENINGS: set[Any] = {torch.flatten, "flatten", "view", "reshape", "squeeze"}


@attrs.frozen(eq=False)
class Group:
    """Tensors whose channels must be scaled alike, since they are added or one makes another.

    Args:
        tensors: The fake quantizers that see them.
        makers: Layers and batch norms that give them.
        readers: Layers that read them.
    """

    tensors: Sequence[FakeQuantizer]
    makers: Sequence[nn.Module]
    readers: Sequence[nn.Module]


@torch.no_grad()
def equalize(model: nn.Module, calls: Sequence[tuple[Any, ...]]) -> None:
    """Scales channels of a prepared model's weights, biases and batch norms, in place.

    Channels are scaled where all that reads them are layers and all in between keeps the scale:
    ReLU, pooling, additions. (ReLU6 does not: it cuts at 6.) Other channels stay.

    Args:
        model: Prepared with example inputs, not frozen.
        calls: Arguments of its forward, batch first.

    Raises:
        QuantizationError: No part of the model could be followed.
    """
    parts = [part for _, part in graphs(model)]
    if not parts:
        raise QuantizationError(
            f"equalize needs to know which layers feed which, and {type(model).__name__} can't be "
            f"followed; leave the option away."
        )
    groups = [group for part in parts for group in _groups(part)]
    with evaluating(model), in_mode("off", model):
        magnitudes = _largest_magnitudes(model, calls, groups)
    for group in groups:
        seen = [magnitudes[tensor] for tensor in group.tensors if tensor in magnitudes]
        if seen:
            read = torch.stack([_input_magnitudes(reader) for reader in group.readers]).amax(0)
            _scale(group, _factors(torch.stack(seen).amax(0), read))


def _factors(made: Tensor, read: Tensor) -> Tensor:
    """What each channel is divided by; 1 for channels that are always 0, or never read."""
    used = (made > 0) & (read > 0)
    return torch.where(used, torch.sqrt(made / read), 1.0)


def _scale(group: Group, factors: Tensor) -> None:
    for maker in group.makers:
        for parameter in (maker.weight, maker.bias):
            if isinstance(parameter, Tensor):
                parameter.div_(factors.reshape(-1, *[1] * (parameter.dim() - 1)))
    for reader in group.readers:
        weight = _by_input(reader)
        weight.mul_(factors.reshape(weight.shape[0], 1, weight.shape[2], 1))


def _by_input(layer: nn.Module) -> Tensor:
    """A view of a weight: [groups, outputs of a group, inputs of a group, kernel]."""
    weight = weight_of(layer).detach()
    groups = layer.groups if isinstance(layer, nn.modules.conv._ConvNd) else 1  # noqa: SLF001
    return weight.view(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _input_magnitudes(layer: nn.Module) -> Tensor:
    """The largest weight that each input channel meets."""
    return _by_input(layer).abs().amax((1, 3)).flatten()


def _largest_magnitudes(
    model: nn.Module, calls: Iterable[tuple[Any, ...]], groups: Iterable[Group]
) -> dict[FakeQuantizer, Tensor]:
    """For each of the groups' tensors, the largest magnitude of each channel."""
    largest: dict[FakeQuantizer, Tensor] = {}

    def note(quantizer: FakeQuantizer, inputs: tuple[Tensor]) -> None:
        dimensions = [dimension for dimension in range(inputs[0].dim()) if dimension != 1]
        found = inputs[0].abs().amax(dimensions)
        largest[quantizer] = torch.maximum(found, largest.get(quantizer, found))

    tensors = {tensor for group in groups for tensor in group.tensors}
    hooks = [tensor.register_forward_pre_hook(note) for tensor in tensors]
    try:
        for inputs in calls:
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _groups(model: fx.GraphModule) -> Iterator[Group]:
    graph = _Graph(model)
    grouped: set[fx.Node] = set()
    for node in model.graph.nodes:
        if graph.makes(node) and node not in grouped:
            group, nodes = graph.group_of(node)
            grouped |= nodes
            if group is not None:
                yield group


class _Graph:
    """A traced model, asked for what happens to the channels of a tensor."""

    def __init__(self, model: fx.GraphModule) -> None:
        self.modules = dict(model.named_modules())
        calls = Counter(node.target for node in model.graph.nodes if node.op == "call_module")
        owners = Counter(
            id(parameter)
            for module in self.modules.values()
            for parameter in module.parameters(recurse=False)
        )
        self.once = {
            name
            for name, module in self.modules.items()
            if calls[name] == 1
            and all(owners[id(p)] == 1 for p in module.parameters(recurse=False))
        }

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def reads(self, node: fx.Node) -> bool:
        """Whether a node is a layer whose input channels are dimension 1 of its input."""
        channels_last = isinstance(self.module(node), nn.Linear) and len(_shape(node)) != 2  # noqa: PLR2004
        return isinstance(self.module(node), _LAYERS) and not channels_last

    def makes(self, node: fx.Node) -> bool:
        """Whether a node gives channels, in dimension 1, that its parameters can scale."""
        return self.reads(node) or isinstance(self.module(node), _BatchNorm)

    def keeps_scale(self, node: fx.Node) -> bool:
        if isinstance(self.module(node), _SCALES_THROUGH_MODULES):
            return True
        if isinstance(self.module(node), nn.Flatten) or node.target in _FLATTENINGS:
            before, after = _shape(node.all_input_nodes[0]), _shape(node)
            return len(before) > 1 and before[:2] == after  # one pixel
        if node.target in _ADDITIONS:
            shapes = [_shape(operand) for operand in node.all_input_nodes]
            return len(shapes) == 2 and shapes[0] == shapes[1] and not node.kwargs  # noqa: PLR2004
        return node.target in _SCALES_THROUGH_CALLS

    def group_of(self, start: fx.Node) -> tuple[Group | None, set[fx.Node]]:
        """The group that a maker's output is in, `None` if it can't be scaled; and its nodes."""
        nodes: set[fx.Node] = set()
        readers: dict[fx.Node, None] = {}
        scalable = True
        left = [start]
        while left:
            node = left.pop()
            if node in nodes:
                continue
            nodes.add(node)
            if not self.makes(node):
                left += [operand for operand in node.all_input_nodes if _shape(operand)]
                scalable &= self.keeps_scale(node)
            for user in node.users:
                if self.reads(user):
                    readers[user] = None
                elif self.keeps_scale(user):
                    left.append(user)
                elif _shape(user) or user.op == "output":
                    scalable = False
        makers = [node for node in nodes if self.makes(node)]
        alone = all(node.target in self.once for node in (*makers, *readers))
        affine = all(self.modules[str(node.target)].weight is not None for node in makers)
        if not (scalable and alone and affine and readers):
            return None, nodes
        modules = [self.module(node) for node in nodes]
        tensors = [module for module in modules if isinstance(module, FakeQuantizer)]
        named = self.modules
        return (
            Group(
                tensors,
                [named[str(node.target)] for node in makers],
                [named[str(node.target)] for node in readers],
            ),
            nodes,
        )


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Of a node's result; empty if that is no tensor, such as another tensor's size."""
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))
