"""What the classic `prepare` and the hand-built layers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from micronet.errors import OptionError, listed
from micronet.quantization import FakeQuantizer, hold, quantized_layers, weight_of

T = TypeVar("T")


def translated(name: str, value: Any, meanings: Mapping[Any, T]) -> T:
    """What a classic number stands for. Raises OptionError where it stands for nothing."""
    if value not in meanings:
        known = listed(f"{number} ({meaning})" for number, meaning in meanings.items())
        raise OptionError(f"{name} must be one of {known}, got {value!r}.", name)
    return meanings[value]


def prepare(
    model: nn.Module,
    technique: Any,
    *,
    inplace: bool,
    quant_inference: bool = False,
    qaft: bool = False,
) -> nn.Module:
    """A float model with a quantizer's layers; each quantizes its own input.

    Args:
        model: Float.
        technique: A quantizer of the registry.
        inplace: Change `model` itself; else a copy is.
        quant_inference: The weights that will be loaded are quantized values already.
        qaft: Grids and batch-norm statistics stay as the state_dict that will be loaded has them.

    Raises:
        QuantizationError: Nothing to quantize, or already quantized.
    """
    prepared: nn.Module = technique.prepare(model, ())
    if quant_inference:
        for _, layer in quantized_layers(prepared):
            layer.weight_quantizer = nn.Identity()
    if qaft:
        hold(prepared)
    return _become(model, prepared) if inplace else prepared


def weight_quantizer(technique: Any, layer: nn.Module, *, quant_inference: bool) -> nn.Module:
    """What a hand-built layer does to its weight."""
    quantizer: nn.Module | None = None
    if not quant_inference:
        quantizer = technique.weight_quantizer(layer)
    return nn.Identity() if quantizer is None else quantizer


@torch.no_grad()
def store_quantized_weights(model: nn.Module) -> None:
    """Puts the quantized values in the place of the weights, as `quant_inference` reads them."""
    for _, layer in quantized_layers(model):
        quantizer = layer.weight_quantizer
        if isinstance(quantizer, FakeQuantizer):
            weight = weight_of(layer)
            weight.copy_(quantizer.quantize(weight).dequantize())
            layer.weight_quantizer = nn.Identity()


@torch.no_grad()
def _become(model: nn.Module, prepared: nn.Module) -> nn.Module:
    """Makes `model` what `prepared` is; its parameters stay its own, for the optimizer's sake."""
    own = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in list(prepared.named_parameters(remove_duplicate=False)):
        if name in own:
            path, _, leaf = name.rpartition(".")
            own[name].copy_(parameter)
            setattr(prepared.get_submodule(path), leaf, own[name])
    model.__class__ = type(prepared)
    model.__dict__ = prepared.__dict__
    return model
