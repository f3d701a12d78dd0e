"""Brings each quantized layer back to what the float layer gives, in the order in which they run.

The float and the quantized model run side by side, as the two halves of one batch, so that each
layer gets what the layers before it give once they are corrected themselves. Where the model as a
whole has no graph, its parts do so, one by one.

Bias correction (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", section 4.2): with x and x' what the float and the quantized layer get, the mean error
of each output channel, E[W' x'] - E[W x], is taken off the bias, or added to the mean that the
batch norm behind subtracts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from micronet.errors import QuantizationError
from micronet.graph import conv_bn_pairs, graphs
from micronet.graph.batches import batch_size, joined
from micronet.graph.modes import evaluating
from micronet.quantization import (
    AffineFakeQuantizer,
    FakeQuantizer,
    QuantizedLayer,
    along,
    fake_quantizers,
    in_mode,
    quantized_layers,
    weight_of,
)
from micronet_iao import rounding
from micronet_iao.parts import calls_of_parts

IMAGES = 32
"""Images that are looked at, evenly taken from all batches, at most."""


@torch.no_grad()
def reconstruct(
    model: nn.Module,
    calls: Sequence[tuple[Any, ...]],
    *,
    learned: bool,
    bias_correction: bool,
) -> None:
    """Changes the weights and biases of a calibrated model, in place.

    Args:
        model: Prepared and calibrated.
        calls: Arguments of its forward, batch first.
        learned: Learns the rounding: a weight becomes the real number of its learned code, which
            is at most 1 from the nearest one.
        bias_correction: Corrects layers that have a bias or a batch norm behind them.

    Raises:
        QuantizationError: A layer gets its inputs in another order than batch first.
    """
    layers = dict(quantized_layers(model))
    bns = _batch_norms(model)
    owners = Counter(id(weight_of(layer)) for layer in layers.values())
    corrections = {
        name: _Correction(
            name,
            layer,
            bns.get(name),
            learned=learned and rounding.can_learn(layer) and owners[id(weight_of(layer))] == 1,
            bias_correction=bias_correction,
        )
        for name, layer in layers.items()
    }
    for part_name, (part, inputs) in calls_of_parts(model, calls, IMAGES).items():
        prefix = f"{part_name}." if part_name else ""
        own = [each for name, each in corrections.items() if f"{name}.".startswith(prefix)]
        _run_side_by_side(part, inputs, own)
    for each in corrections.values():
        each.apply()


def _run_side_by_side(
    part: nn.Module, inputs: tuple[Any, ...], corrections: Sequence[_Correction]
) -> None:
    hooks = []
    for each in corrections:
        each.images = batch_size(inputs)
        hooks.append(each.layer.register_forward_hook(each))
    layers = (layer for _, layer in quantized_layers(part))
    own = {quantizer for layer in layers for _, quantizer in fake_quantizers(layer)}
    hooks += [
        quantizer.register_forward_hook(_quantize_second_half)
        for _, quantizer in fake_quantizers(part)
        if quantizer not in own
    ]
    try:
        with evaluating(part), in_mode("off", part):
            part(*joined([inputs, inputs]))
    finally:
        for hook in hooks:
            hook.remove()


def _batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norm behind each layer, by the layer's name, as far as a graph tells."""
    if not any(graphs(model)):
        return {}
    found = {}
    for layer, bn_name in conv_bn_pairs(model):
        bn = model.get_submodule(bn_name)
        assert isinstance(bn, _BatchNorm)
        found[layer] = bn
    return found


def _quantize_second_half(quantizer: FakeQuantizer, inputs: tuple[Tensor], _: Tensor) -> Tensor:
    exact, quantized = inputs[0].chunk(2)
    return torch.cat([exact, quantizer.fake_quantize(quantized)])


class _Correction:
    """A forward hook: computes a layer's correction, and lets the second half have it at once."""

    def __init__(
        self,
        name: str,
        layer: QuantizedLayer,
        bn: _BatchNorm | None,
        *,
        learned: bool,
        bias_correction: bool,
    ) -> None:
        self.name, self.layer, self.bn = name, layer, bn
        self.images = 0
        """Of each half of the batch."""
        self.learned = learned
        self.corrects_bias = bias_correction and not (layer.bias is None and bn is None)
        self.weight: Tensor | None = None
        self.mean_error: Tensor | None = None

    def __call__(self, layer: QuantizedLayer, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        both, *others = inputs
        if len(both) % (2 * self.images):
            raise QuantizationError(
                f"{self.name!r} gets {len(both)} rows for {2 * self.images} images: rounding and "
                f"bias_correction need the batch in the first dimension; leave them away."
            )
        x = both.chunk(2)[1]
        exact = output.chunk(2)[0]
        if layer.input_quantizer is not None:
            x = layer.input_quantizer.fake_quantize(x)
        if self.weight is None:
            self.weight = self._rounded(x, exact)
        found = _output_with(self.weight, layer, x, *others)
        if self.corrects_bias:
            channels = 1 if isinstance(layer, _ConvNd) else exact.dim() - 1
            if self.mean_error is None:
                rest = [dimension for dimension in range(exact.dim()) if dimension != channels]
                self.mean_error = (found - exact).mean(rest)
            found -= along(channels, found, self.mean_error)
        return torch.cat([exact, found])

    def apply(self) -> None:
        if self.learned and self.weight is not None:
            weight_of(self.layer).copy_(self.weight)
        if self.mean_error is None:
            return
        if isinstance(self.layer.bias, Tensor):
            self.layer.bias.sub_(self.mean_error)
        elif self.bn is not None and self.bn.running_mean is not None:
            self.bn.running_mean.add_(self.mean_error)

    def _rounded(self, x: Tensor, exact: Tensor) -> Tensor:
        """The weight that the layer will compute with."""
        layer, weight = self.layer, weight_of(self.layer)
        quantizer = layer.weight_quantizer
        assert isinstance(quantizer, AffineFakeQuantizer)
        nearest = quantizer.quantize(weight)
        if not self.learned:
            return nearest.dequantize()
        if isinstance(layer.bias, Tensor):
            exact = exact - along(1 if isinstance(layer, _ConvNd) else -1, exact, layer.bias)
        h, d = rounding.moments(layer, x, exact, about_mean=self.corrects_bias)

        def rows(values: Tensor) -> Tensor:
            """[groups, inputs, outputs]."""
            return values.reshape(len(h), -1, h.shape[1]).mT.contiguous()

        scale, zero_point = nearest.scale, nearest.zero_point
        if nearest.axis is not None:
            scale, zero_point = (along(nearest.axis, weight, each) for each in (scale, zero_point))
        step, zero = rows(scale.expand_as(weight)), rows(zero_point.expand_as(weight))
        codes = rows(nearest.codes.to(torch.float32)) - zero
        low = torch.maximum(codes - 1, quantizer.grid.quant_min - zero)
        high = torch.minimum(codes + 1, quantizer.grid.quant_max - zero)
        learned = rounding.learn(codes, step[:, :1], low, high, h, d)
        return (learned * step).mT.reshape(weight.shape)


def _output_with(weight: Tensor, layer: QuantizedLayer, *inputs: Tensor) -> Tensor:
    """What a layer gives with another weight, not rounded, without its hooks."""
    parameter = weight_of(layer)
    own = parameter.data
    parameter.data = weight
    try:
        output: Tensor = layer.forward(*inputs)
    finally:
        parameter.data = own
    return output
