"""Where quantizers go: one on each weight, and one on each tensor that a quantized operation
reads, right behind what produces it, so that all readers share it as they do in the engine.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, fx, nn

from micronet.errors import QuantizationError, listed
from micronet.graph import check_same_function, execution_order, follow, graphs
from micronet.graph.copying import copy_of
from micronet.graph.example_inputs import check_example_inputs
from micronet.quantization.fake_quantizer import FakeQuantizer, weight_of
from micronet.quantization.layers import (
    QUANTIZED,
    QuantizedLayer,
    described_in_float,
    layers_left_in_float,
    quantize_layer,
)

ACTIVATIONS = "activation_quantizers"
"""Name of the submodule that holds them in a traced model."""

_READS_INTEGERS_MODULES = (*QUANTIZED, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_READS_INTEGERS_CALLS: set[Any] = {
    torch.cat,
    torch.concat,
    torch.concatenate,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
}
_READS_TWO_INTEGERS_CALLS: set[Any] = {
    operator.add,
    operator.iadd,
    torch.add,
    "add",
    "add_",
    operator.mul,
    operator.imul,
    torch.mul,
    torch.multiply,
    "mul",
    "mul_",
    operator.matmul,
    torch.matmul,
    torch.bmm,
    "matmul",
    "bmm",
}
"""Between two activations. With a number or a parameter they are affine steps of float layers."""
_KEEPS_GRID_MODULES = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.ChannelShuffle,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
)
"""Operations whose outputs are some of their inputs, or 0, which is on every grid: a quantized
input leaves them quantized. (Dropout scales in training; in eval mode, and so in the engine, it is
the identity.)"""
_KEEPS_GRID_CALLS: set[Any] = {
    operator.getitem,
    F.max_pool2d,
    F.adaptive_max_pool2d,
    F.channel_shuffle,
    F.pixel_shuffle,
    F.pixel_unshuffle,
    torch.flatten,
    torch.reshape,
    torch.transpose,
    torch.permute,
    torch.squeeze,
    torch.unsqueeze,
    torch.roll,
    "contiguous",
    "flatten",
    "permute",
    "reshape",
    "roll",
    "squeeze",
    "swapaxes",
    "transpose",
    "unsqueeze",
    "view",
}
_SPLITS: set[Any] = {torch.chunk, torch.split, torch.unbind, "chunk", "split", "unbind"}
"""Give a tuple of parts of their input, which `operator.getitem` takes apart."""
_NAMED = 4
"""Layers that a warning names before it counts the others."""


def place_quantizers(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    weight: Callable[[nn.Module], FakeQuantizer],
    activation: Callable[[], FakeQuantizer],
) -> nn.Module:
    """A copy of a float model with fake quantizers; `model` stays as it is.

    Weighted layers become quantized layers under their own names. Activations are quantized in
    the graph of the model, or in those of the parts of it that can be followed; each weighted
    layer outside of them quantizes its own input, and a warning says so. Another warning names
    what keeps weights in float: layers of other types, and those whose weights the model reads
    without calling them.

    Args:
        model: Float, with at least one layer of a type in `QUANTIZED`.
        example_inputs: What its forward takes, batch first. Empty if unknown: each weighted layer
            quantizes its own input.
        weight: Makes a layer's weight quantizer.
        activation: Makes an activation's quantizer.

    Raises:
        QuantizationError: Nothing to quantize, or already quantized.
        ChangedFunctionError: With its quantizers off, the result computes something else.
    """
    check_example_inputs(example_inputs)
    if not example_inputs:
        return quantize_weighted_layers(model, (), weight=weight, activation=activation)
    prepared = _copy_of_float(model)
    reasons = follow(prepared, example_inputs)
    parts = [part for _, part in graphs(prepared)]
    followed = dict.fromkeys(layer for part in parts for layer in _called_layers(part))
    read = {id(tensor) for part in parts for tensor in _tensors_read(part)}
    alone = {
        name: layer
        for name in weighted_layers(prepared, example_inputs)
        if (layer := prepared.get_submodule(name)) not in followed and id(layer.weight) not in read
    }
    _refuse_none([*followed, *alone])
    for part in parts:
        _quantize_activations(part, activation)
    for layer in followed:
        quantize_layer(layer, weight(layer))
    for layer in alone.values():
        quantize_layer(layer, weight(layer), activation())
    _warn_of_parts(reasons, list(alone), [name for name, _ in graphs(prepared)])
    _warn_of_float(prepared, layers_left_in_float(prepared))
    _check_placing(model, prepared, example_inputs)
    return prepared


def quantize_weighted_layers(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    weight: Callable[[nn.Module], FakeQuantizer | None],
    activation: Callable[[], FakeQuantizer | None] | None = None,
    skip_first: bool = False,
    skip_last: bool = False,
) -> nn.Module:
    """A copy of a float model whose weighted layers quantize their weights and own inputs.

    For techniques whose quantized activations are not the activations at a lower precision, so
    that only the layer itself may read them.

    Args:
        model: Float, with at least one layer of a type in `QUANTIZED` that is not skipped.
        example_inputs: What its forward takes, batch first; empty if unknown.
        weight: Makes a layer's weight quantizer; `None` leaves its weight in float.
        activation: Makes the quantizer of a layer's input; `None` leaves it in float.
        skip_first: Leaves the layer that runs first in float.
        skip_last: Leaves the layer that runs last in float.

    Raises:
        QuantizationError: Nothing to quantize, or already quantized.
    """
    check_example_inputs(example_inputs)
    prepared = _copy_of_float(model)
    names = weighted_layers(prepared, example_inputs)
    _refuse_none(names)
    chosen = names[int(skip_first) : len(names) - int(skip_last)]
    if not chosen:
        raise QuantizationError(
            f"The model has no layer left to quantize: its {len(names)} weighted layers are the "
            f"first and the last."
        )
    for name in chosen:
        layer = prepared.get_submodule(name)
        quantize_layer(layer, weight(layer), activation() if activation else None)
    if example_inputs:
        _check_placing(model, prepared, example_inputs)
    left = [name for name in layers_left_in_float(prepared) if name not in names]
    _warn_of_float(prepared, left)
    return prepared


def weighted_layers(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the layers that can be quantized, in the order in which they run."""
    order = execution_order(model, example_inputs)
    return [name for name in order if type(model.get_submodule(name)) in QUANTIZED]


@torch.no_grad()
def _check_placing(model: nn.Module, prepared: nn.Module, example_inputs: tuple[Any, ...]) -> None:
    """Holds a prepared model to the float one, with the weights that a technique may have moved."""
    own = dict(model.named_parameters())
    moved = {
        name: parameter
        for name, parameter in prepared.named_parameters()
        if name in own and not torch.equal(own[name], parameter)
    }
    if moved:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its author was told when the copy was made
            model = _copy_of_float(model)
        for name, parameter in moved.items():
            model.get_parameter(name).copy_(parameter)
    check_same_function(model, prepared, example_inputs, what="Placing quantizers")


def _copy_of_float(model: nn.Module) -> nn.Module:
    copied = copy_of(model)
    if any(isinstance(module, QuantizedLayer) for module in copied.modules()):
        raise QuantizationError("The model is quantized already.")
    for name, layer in copied.named_modules():
        if type(layer) in QUANTIZED and not _is_finite(weight_of(layer)):
            raise QuantizationError(f"The weight of {name!r} holds NaN or Inf.")
    return copied


def _is_finite(weight: Tensor) -> bool:
    return weight.is_meta or bool(weight.isfinite().all())


def _refuse_none(layers: Sequence[Any]) -> None:
    if not layers:
        kinds = listed(sorted(kind.__name__ for kind in QUANTIZED))
        raise QuantizationError(f"The model has no layer that can be quantized: {kinds}.")


def _warn_of_float(prepared: nn.Module, names: list[str]) -> None:
    if names:
        shown = [described_in_float(prepared, name) for name in names[:_NAMED]]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        warnings.warn(f"Weights stay in float in {listed(shown)}{more}.", stacklevel=4)


def _warn_of_parts(reasons: dict[str, str], alone: list[str], parts: list[str]) -> None:
    """Says why a model has no graph of its own, and what that means."""
    if not alone and "" not in reasons:
        return
    outer = min(reasons, key=len, default="")
    why = reasons[outer] if not outer else f"{outer!r} can't be followed: {reasons[outer]}"
    followed = f" Graphs of their own have {_named(parts)}." if parts and "" not in parts else ""
    warnings.warn(
        f"{why}.{followed} Each layer elsewhere quantizes its own input; what lies between those "
        f"layers stays in float.",
        stacklevel=4,
    )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{listed(map(repr, names[:_NAMED]))}{more}"


def _tensors_read(part: fx.GraphModule) -> Iterator[Tensor]:
    """The model's own tensors that its code reads without calling the layer that has them."""
    for node in part.graph.nodes:
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            yield getattr(part.get_submodule(owner), name)


def _called_layers(traced: fx.GraphModule) -> list[nn.Module]:
    """The layers to quantize: those that the graph calls and whose weights it does not read."""
    nodes = traced.graph.nodes
    read = {str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"}
    names = [node.target for node in nodes if node.op == "call_module" and node.target not in read]
    modules = dict.fromkeys(traced.get_submodule(name) for name in names)
    return [module for module in modules if type(module) in QUANTIZED]


def _quantize_activations(traced: fx.GraphModule, activation: Callable[[], FakeQuantizer]) -> None:
    quantized: set[fx.Node] = set()
    for node in list(traced.graph.nodes):
        if not reads_integers(node):
            continue
        for operand in _tensor_operands(node):
            source = _source(operand)
            if source in quantized:
                continue
            taken = hasattr(nn.Module, source.name)  # as the result of x.to(...) is named
            name = f"{ACTIVATIONS}.{source.name}{'_' if taken else ''}"
            traced.add_submodule(name, activation())
            with traced.graph.inserting_after(source):
                call = traced.graph.call_module(name, (source,))
            call.meta = dict(source.meta)
            source.replace_all_uses_with(call, delete_user_cb=partial(operator.is_not, call))
            quantized.add(call)
    if quantized:
        traced.get_submodule(ACTIVATIONS).train(traced.training)
    traced.graph.lint()
    traced.recompile()


def reads_integers(node: fx.Node) -> bool:
    """Whether an operation runs on integers where its operands are quantized."""
    if _is(node, (), _READS_TWO_INTEGERS_CALLS):
        return all(_is_activation(operand) for operand in node.args[:2])
    return _is(node, _READS_INTEGERS_MODULES, _READS_INTEGERS_CALLS)


def _is_activation(value: Any) -> bool:
    return _is_float_tensor(value) and value.op != "get_attr"


def _source(node: fx.Node) -> fx.Node:
    """The node that first has these values: back through what only moves them around."""
    while (moved := _moved(node)) is not None:
        node = moved
    return node


def moves_values(node: fx.Node) -> bool:
    """Whether a node gives on some of the values it gets as they are, be it in a tuple."""
    return node.target in _SPLITS or _moved(node) is not None


def _moved(node: fx.Node) -> fx.Node | None:
    """The tensor whose values, all or some, a node gives on as they are; `None` if it does not."""
    if not (_is(node, _KEEPS_GRID_MODULES, _KEEPS_GRID_CALLS) or _repeats(node)):
        return None
    operand = node.all_input_nodes[0]
    if operand.target in _SPLITS:
        operand = operand.all_input_nodes[0]
    return operand if _is_float_tensor(operand) else None


def _repeats(node: fx.Node) -> bool:
    """Whether a node interpolates by repeating values, or pads with them or with 0."""
    if _is(node, (nn.Upsample,), set()):
        return str(_module(node).mode).startswith("nearest")
    if _is(node, (), {F.interpolate}):
        named = len(node.args) < 4  # noqa: PLR2004 (the mode comes fourth)
        return named and str(node.kwargs.get("mode", "nearest")).startswith("nearest")
    if _is(node, (), {F.pad}):
        return len(node.args) < 4 and not node.kwargs.get("value")  # noqa: PLR2004 (the value too)
    return False


def _is(node: fx.Node, module_types: tuple[type[nn.Module], ...], calls: set[Any]) -> bool:
    if node.op == "call_module":
        return isinstance(_module(node), module_types)
    called = node.op in ("call_function", "call_method")
    return called and node.target in calls and _is_float_tensor(node)


def _module(node: fx.Node) -> nn.Module:
    root = node.graph.owning_module
    assert root is not None
    return root.get_submodule(str(node.target))


def _tensor_operands(node: fx.Node) -> list[fx.Node]:
    return [operand for operand in node.all_input_nodes if _is_float_tensor(operand)]


def _is_float_tensor(value: Any) -> bool:
    """Whether a value in the graph is the result of a node that gives one float tensor."""
    meta = value.meta.get("tensor_meta") if isinstance(value, fx.Node) else None
    dtype = getattr(meta, "dtype", None)
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point
