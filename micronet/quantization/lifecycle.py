"""What happens to a prepared model's quantizers after `prepare`: calibration and freezing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from micronet.errors import QuantizationError
from micronet.graph.batches import arguments, check_batches
from micronet.graph.modes import evaluating
from micronet.quantization.convert import StoredWeight
from micronet.quantization.fake_quantizer import FakeQuantizer
from micronet.quantization.layers import quantized_layers
from micronet.quantization.observation import NotFiniteError


def fake_quantizers(model: nn.Module) -> Iterator[tuple[str, FakeQuantizer]]:
    """Every fake quantizer with its name."""
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantizer):
            yield name, module


def is_ready(model: nn.Module) -> bool:
    """Whether every quantizer knows its grid, so that the model's outputs mean something."""
    return all(quantizer.ready for _, quantizer in fake_quantizers(model))


@contextmanager
def in_mode(mode: Literal["quantize", "calibrate", "off"], model: nn.Module) -> Iterator[None]:
    """Puts every fake quantizer into a mode for a while; frozen ones never calibrate."""
    before = [(quantizer, quantizer.mode) for _, quantizer in fake_quantizers(model)]
    for quantizer, _ in before:
        quantizer.mode = "off" if mode == "calibrate" and quantizer.frozen else mode
    try:
        yield
    finally:
        for quantizer, old in before:
            quantizer.mode = old


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Runs batches through the float model while its observers watch.

    Args:
        model: A prepared model; its weights and batch-norm statistics stay as they are.
        batches: Inputs, batch first, as `micronet.graph.batches.arguments` takes them: tensors,
            tuples or dictionaries of several, or a data loader of images and labels.

    Raises:
        QuantizationError: Nothing is quantized, there are no batches, it is not clear which parts
            of a batch are inputs, or a tensor holds NaN or Inf; the message names the first such
            layer.
    """
    check_batches(batches)
    quantizers = dict(fake_quantizers(model))
    if any(
        isinstance(layer.weight_quantizer, StoredWeight) for _, layer in quantized_layers(model)
    ):
        raise QuantizationError("The model is converted already; calibrate before that.")
    if not quantizers:
        raise QuantizationError("The model has no quantizers; prepare it before calibration.")
    count = 0
    with evaluating(model), in_mode("calibrate", model):
        for batch in batches:
            args, kwargs = arguments(model, batch)
            model(*args, **kwargs)
            count += 1
    if count == 0:
        raise QuantizationError("Calibration got no batches.")
    for name, quantizer in quantizers.items():
        try:
            quantizer.settle()
        except NotFiniteError as error:
            raise QuantizationError(f"Calibration met NaN or Inf at {name!r}.") from error


def freeze(model: nn.Module) -> None:
    """Fixes every grid and every norm's running statistics, for the rest of the training.

    Batch norms of all types count, synchronized ones and subclasses too, and instance norms.

    Raises:
        QuantizationError: A quantizer has seen no data yet.
    """
    unready = [name for name, quantizer in fake_quantizers(model) if not quantizer.ready]
    if unready:
        raise QuantizationError(
            f"Freezing needs a trained or calibrated model; {unready[0]!r} has seen no data yet."
        )
    hold(model)


def hold(model: nn.Module) -> None:
    """Freezes a model whose grids need not be known yet, since its state is loaded afterwards."""
    for _, quantizer in fake_quantizers(model):
        quantizer.frozen = True
    for module in model.modules():
        if isinstance(module, _NormBase):
            module.eval()
            module.train = partial(_stay_in_eval_mode, module)  # type: ignore[method-assign, assignment]


def _stay_in_eval_mode(module: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001
    """Stands for `train` of a frozen norm: its affine part learns, its statistics do not.

    In the instance, not in a class: the norm's own type stays, whichever it is.
    """
    return module
