"""Folding a batch norm into the layer before it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from micronet.quantization.fake_quantizer import FakeQuantizer, weight_of
from micronet.quantization.kernels import along, widened
from micronet.quantization.layers import output_axis


@torch.no_grad()
def fold_batch_norm(layer: nn.Module, bn: _BatchNorm) -> None:
    """Makes `layer` compute what `bn(layer(x))` does in eval mode, in place.

    With f = gamma / sqrt(variance + eps): weight <- f * weight, bias <- beta + (bias - mean) * f.
    A fake-quantized weight keeps its integer codes: |f| goes into the scales and the sign of f
    reflects the grid, so nothing is rounded again.
    """
    assert bn.running_mean is not None
    assert bn.running_var is not None
    gamma = bn.weight if bn.weight is not None else torch.ones_like(bn.running_var)
    beta = bn.bias if bn.bias is not None else torch.zeros_like(bn.running_mean)
    factor = widened(gamma) * torch.rsqrt(widened(bn.running_var) + bn.eps)
    own = weight_of(layer)
    weight, learns = widened(own), own.requires_grad
    quantizer = getattr(layer, "weight_quantizer", None)
    if isinstance(quantizer, FakeQuantizer):
        weight = quantizer.quantize(weight).dequantize()
        quantizer.rescale(factor)
    weight = weight * along(output_axis(layer), weight, factor)
    bias = layer.bias if isinstance(layer.bias, torch.Tensor) else torch.zeros_like(factor)
    bias = beta + (bias - bn.running_mean) * factor
    layer.weight = nn.Parameter(weight.to(own.dtype), requires_grad=learns)
    layer.bias = nn.Parameter(bias.to(own.dtype), requires_grad=learns)


def remove_batch_norm(model: nn.Module, name: str) -> None:
    """Puts the identity in the place of a batch norm; what its author put into it stays."""
    identity = nn.Identity()
    for child_name, child in model.get_submodule(name).named_children():
        identity.add_module(child_name, child)
    model.set_submodule(name, identity)
