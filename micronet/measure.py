"""What a model costs: operations, parameters, bits."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from micronet.graph.batches import first_rows
from micronet.graph.modes import attention_in_parts, evaluating
from micronet.quantization import (
    FakeQuantizer,
    StoredWeight,
    fake_quantizers,
    in_mode,
    quantized_layers,
    weight_of,
)

FLOAT_BITS = 32


def gflops(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> float:
    """Billions of multiply-accumulates for one image; one multiplication and addition count 1."""
    inputs = first_rows(example_inputs, 1)
    counter = FlopCounterMode(display=False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        # The counter asks each tensor that needs gradients where its own come from.
        for parameter in learning:
            parameter.requires_grad = False
        with (
            torch.no_grad(),
            evaluating(model),
            in_mode("off", model),
            attention_in_parts(),
            counter,
        ):
            model(*inputs)
    finally:
        for parameter in learning:
            parameter.requires_grad = True
    return float(counter.get_total_flops()) / 2 / 1e9


def params_m(model: nn.Module) -> float:
    """Millions of trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def weight_bits(model: nn.Module) -> float:
    """Width of most weights' codes; 32 for a float model."""
    counts: Counter[float] = Counter()
    for _, layer in quantized_layers(model):
        quantizer = layer.weight_quantizer
        if isinstance(quantizer, FakeQuantizer):
            counts[quantizer.bits] += weight_of(layer).numel()
        elif isinstance(quantizer, StoredWeight):
            counts[quantizer.bits] += quantizer.codes.numel()
    return counts.most_common(1)[0][0] if counts else FLOAT_BITS


def activation_bits(model: nn.Module) -> float:
    """Width of most activations' codes; 32 where activations are float."""
    of_weights = {id(layer.weight_quantizer) for _, layer in quantized_layers(model)}
    counts = Counter(q.bits for _, q in fake_quantizers(model) if id(q) not in of_weights)
    return counts.most_common(1)[0][0] if counts else FLOAT_BITS
