"""Weights quantized as they will be once their batch norm is folded into them."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from micronet.quantization import (
    AffineFakeQuantizer,
    QuantizedTensor,
    RangeObserver,
    along,
    extremes,
    in_mode,
    output_axis,
)

_SMALLEST = 1e-8
"""A factor of 0 would lose the weight; its batch norm silences the channel anyway."""


class FoldedWeightQuantizer(AffineFakeQuantizer):
    """Q(w f) / f with f = gamma / sqrt(variance + eps) of each output channel.

    The batch norm that follows multiplies by its own f, so the layer computes with the integers
    of the folded weight, in one convolution, and its output is normalised by the batch as ever
    (Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference",
    section 3.2.2). f is constant for the gradient. With one scale for the whole weight this
    differs from Q(w); with one for each channel f cancels, so that case needs no class.

    Args:
        layer: The layer; only its kind matters.
        bn: The batch norm that alone reads the layer's output.
        options: As `AffineFakeQuantizer` takes them.
    """

    def __init__(self, layer: nn.Module, bn: _BatchNorm, **options: Any) -> None:
        super().__init__(**options)
        self.channels = output_axis(layer)
        self._bn: tuple[_BatchNorm, ...] = (bn,)  # in a tuple, so that it stays the model's own
        self.batch_variance: Tensor | None = None
        """Of the layer's output in this very step, [channels]; `None`: use the running one."""

    @property
    def follows_batches(self) -> bool:
        """Whether the batch norm is at work on the statistics of each batch."""
        return bool(self._bn) and self._bn[0].training

    @property
    def factor(self) -> Tensor | None:
        """The f of each output channel; `None` once the batch norm is folded."""
        if not self._bn:
            return None
        (bn,) = self._bn
        assert bn.running_var is not None
        variance = bn.running_var
        if self.follows_batches and self.batch_variance is not None:
            variance = self.batch_variance
        gamma = bn.weight.detach() if bn.weight is not None else torch.ones_like(bn.running_var)
        factor = gamma.float() * torch.rsqrt(variance.float() + bn.eps)
        return torch.where(factor.abs() < _SMALLEST, _SMALLEST, factor)

    def watch(self, x: Tensor) -> None:
        factor = self.factor
        if factor is not None and isinstance(self.observer, RangeObserver):
            # f keeps or reverses the order within a channel, so the ends of w f are the ends of w.
            low, high = extremes(x, self.channels)
            super().watch(torch.stack([low * factor, high * factor]))
        else:
            super().watch(self._folded(x))

    def fake_quantize(self, x: Tensor) -> Tensor:
        factor = self.factor
        if factor is None:
            return super().fake_quantize(x)
        if self._covered and self.grid.symmetric:
            quantized: Tensor = _Covered.apply(x, along(self.channels, x, factor), self.scale)
            return quantized
        return super().fake_quantize(self._folded(x)) / along(self.channels, x, factor)

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        folded = super().quantize(self._folded(x))
        factor = self.factor
        if factor is None:
            return folded
        negative = factor < 0
        reflection = self.grid.quant_min + self.grid.quant_max
        codes = folded.codes.to(torch.int32)
        flipped = torch.where(along(self.channels, x, negative), reflection - codes, codes)
        return attrs.evolve(
            folded,
            codes=flipped.to(folded.codes.dtype),
            scale=folded.scale / factor.abs(),
            zero_point=torch.where(negative, reflection - folded.zero_point, folded.zero_point),
            axis=self.channels,
        )

    def rescale(self, factor: Tensor) -> None:  # noqa: ARG002 (it is this batch norm's own)
        """The weight is folded now; the grid was always the folded weight's."""
        self._bn = ()
        self.observer = None

    def _folded(self, x: Tensor) -> Tensor:
        factor = self.factor
        return x if factor is None else x * along(self.channels, x, factor)


class _Covered(torch.autograd.Function):
    """Q(w f) / f where no value is clamped, so that its gradient is the identity."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, factor: Tensor, scale: Tensor) -> Tensor:
        return torch.mul(x, factor).mul_(scale.reciprocal()).round_().mul_(scale / factor)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


@torch.no_grad()
def observe_batch_variance(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A forward pre-hook: the variance that the float layer's output has over this batch.

    It costs a second convolution, which folding with running statistics does not need.
    """
    quantizer = layer.weight_quantizer
    if not isinstance(quantizer, FoldedWeightQuantizer):  # the weight is integers by now
        return
    if not layer.training or quantizer.frozen or not quantizer.follows_batches:
        quantizer.batch_variance = None
        return
    with in_mode("off", layer):
        output = layer.forward(*inputs)
    others = [dimension for dimension in range(output.dim()) if dimension != 1]
    quantizer.batch_variance = output.float().var(others, correction=0)
