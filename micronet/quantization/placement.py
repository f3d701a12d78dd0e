"""Where quantizers go: one on each weight, and one on each tensor that a quantized operation
reads, right behind what produces it, so that all readers share it as they do in the engine.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, fx, nn

from micronet.errors import QuantizationError, listed
from micronet.quantization.fake_quantizer import FakeQuantizer
from micronet.quantization.layers import QUANTIZED, QuantizedLayer, quantize_layer

ACTIVATIONS = "activation_quantizers"
"""Name of the submodule that holds them in a traced model."""

_READS_INTEGERS_MODULES = (*QUANTIZED, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_READS_INTEGERS_CALLS: set[Any] = {
    operator.add,
    operator.iadd,
    torch.add,
    torch.cat,
    torch.concat,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    "add",
    "add_",
}
_KEEPS_GRID_MODULES = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.ChannelShuffle,
    nn.PixelShuffle,
)
"""Operations whose outputs are some of their inputs: a quantized input leaves them quantized.
(Dropout scales in training; in eval mode, and so in the engine, it is the identity.)"""
_KEEPS_GRID_CALLS: set[Any] = {
    F.max_pool2d,
    F.channel_shuffle,
    F.pixel_shuffle,
    torch.flatten,
    torch.reshape,
    torch.transpose,
    torch.permute,
    torch.squeeze,
    torch.unsqueeze,
    "contiguous",
    "flatten",
    "permute",
    "reshape",
    "squeeze",
    "transpose",
    "unsqueeze",
    "view",
}


def place_quantizers(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    weight: Callable[[nn.Module], FakeQuantizer],
    activation: Callable[[], FakeQuantizer] | None,
) -> nn.Module:
    """A copy of a float model with fake quantizers; `model` stays as it is.

    Weighted layers become quantized layers under their own names. Activations are quantized in
    the traced graph; where torch.fx can't trace the model, each weighted layer quantizes its own
    input instead, and a warning says so.

    Args:
        model: Float, with at least one layer of a type in `QUANTIZED`.
        example_inputs: What its forward takes, batch first.
        weight: Makes a layer's weight quantizer.
        activation: Makes an activation's quantizer; `None` leaves activations in float.

    Raises:
        QuantizationError: Nothing to quantize, or already quantized.
    """
    from micronet.graph import TracingError, propagate_shapes, trace

    prepared = _copy_of_float(model)
    layers = [module for module in prepared.modules() if type(module) in QUANTIZED]
    inputs_in_layers = False
    if activation is not None:
        try:
            traced = trace(prepared)
            propagate_shapes(traced, example_inputs)
            _quantize_activations(traced, activation)
            prepared = traced
        except TracingError as error:
            inputs_in_layers = True
            warnings.warn(
                f"{error}. Each layer quantizes its own input; what lies between layers stays in "
                f"float.",
                stacklevel=3,
            )
    for layer in layers:
        quantize_layer(
            layer, weight(layer), activation() if activation and inputs_in_layers else None
        )
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
        example_inputs: What its forward takes, batch first.
        weight: Makes a layer's weight quantizer; `None` leaves its weight in float.
        activation: Makes the quantizer of a layer's input; `None` leaves it in float.
        skip_first: Leaves the layer that runs first in float.
        skip_last: Leaves the layer that runs last in float.

    Raises:
        QuantizationError: Nothing to quantize, or already quantized.
    """
    prepared = _copy_of_float(model)
    names = weighted_layers(prepared, example_inputs)
    chosen = names[int(skip_first) : len(names) - int(skip_last)]
    if not chosen:
        raise QuantizationError(
            f"The model has no layer left to quantize: its {len(names)} weighted layers are the "
            f"first and the last."
        )
    for name in chosen:
        layer = prepared.get_submodule(name)
        quantize_layer(layer, weight(layer), activation() if activation else None)
    return prepared


def weighted_layers(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the layers that can be quantized, in the order in which they run."""
    from micronet.graph import execution_order

    order = execution_order(model, example_inputs)
    return [name for name in order if type(model.get_submodule(name)) in QUANTIZED]


def _copy_of_float(model: nn.Module) -> nn.Module:
    if any(isinstance(module, QuantizedLayer) for module in model.modules()):
        raise QuantizationError("The model is quantized already.")
    if not any(type(module) in QUANTIZED for module in model.modules()):
        kinds = listed(sorted(kind.__name__ for kind in QUANTIZED))
        raise QuantizationError(f"The model has no layer that can be quantized: {kinds}.")
    return copy.deepcopy(model)


def _quantize_activations(traced: fx.GraphModule, activation: Callable[[], FakeQuantizer]) -> None:
    quantized: set[fx.Node] = set()
    for node in list(traced.graph.nodes):
        if not _is(node, _READS_INTEGERS_MODULES, _READS_INTEGERS_CALLS):
            continue
        for operand in _tensor_operands(node):
            source = _source(operand)
            if source in quantized:
                continue
            name = f"{ACTIVATIONS}.{source.name}"
            traced.add_submodule(name, activation())
            with traced.graph.inserting_after(source):
                call = traced.graph.call_module(name, (source,))
            call.meta = dict(source.meta)
            source.replace_all_uses_with(call, delete_user_cb=partial(operator.is_not, call))
            quantized.add(call)
    traced.graph.lint()
    traced.recompile()


def _source(node: fx.Node) -> fx.Node:
    """The node that first has these values: back through what only moves them around."""
    while _is(node, _KEEPS_GRID_MODULES, _KEEPS_GRID_CALLS):
        operands = _tensor_operands(node)
        if len(operands) != 1:
            break
        node = operands[0]
    return node


def _is(node: fx.Node, module_types: tuple[type[nn.Module], ...], calls: set[Any]) -> bool:
    from micronet.graph import is_float_tensor

    if node.op == "call_module":
        root = node.graph.owning_module
        assert root is not None
        return isinstance(root.get_submodule(str(node.target)), module_types)
    called = node.op in ("call_function", "call_method")
    return called and node.target in calls and is_float_tensor(node)


def _tensor_operands(node: fx.Node) -> list[fx.Node]:
    from micronet.graph import is_float_tensor

    return [operand for operand in node.all_input_nodes if is_float_tensor(operand)]
