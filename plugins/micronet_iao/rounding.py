"""Learned rounding: each weight goes up or down, whichever serves the layer's output.

Rounding to nearest is best for a weight alone, not for a sum of many. With x the float layer's
input and x' what the quantized layer gets in its place, the codes q of an output channel with
step s are to minimise

    E[(w x - s q x')^2] = s q H (s q)^T - 2 s q d + const,  H = E[x' x'^T],  d = E[x' (w x)]

(Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", section 3.2,
and equation 25 for x'). Where a bias takes up the mean error, moments are taken about the mean.
The paper relaxes the problem; here, since H and d say all about the data, one code after the other
goes to its best value while the others stand: no step size, no randomness, and no step that
makes the error larger.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

_POSITIONS = 32
"""Output pixels along each dimension of an image that are looked at, evenly spaced, at most."""
_SWEEPS = 4
_BLOCK = 64
_SMALLEST = 1e-20
"""A curvature; that of an input which is always 0 would be 0 itself, and any code will do."""
_FEW = 0.001
"""Fraction of the codes; a sweep that changes fewer is the last."""


def can_learn(layer: nn.Module) -> bool:
    """Whether the rounding of a layer's weight can be learned: convolutions, not transposed."""
    return isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))


def moments(
    layer: nn.Module, inputs: Tensor, targets: Tensor, *, about_mean: bool
) -> tuple[Tensor, Tensor]:
    """H [groups, inputs, inputs] and d [groups, inputs, outputs] of a layer.

    Args:
        layer: One that `can_learn`.
        inputs: x', as its forward takes it.
        targets: w x, as its forward gives it, without a bias.
        about_mean: Takes covariances.
    """
    total: list[Tensor] = []
    for image in range(len(inputs)):
        x = _patches(layer, inputs[image : image + 1])
        y = _outputs(layer, targets[image : image + 1])
        found = [x @ x.mT, x @ y.mT, x.sum(2, keepdim=True), y.sum(2, keepdim=True)]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    second, cross, sum_x, sum_y = total
    if about_mean:
        count = len(inputs) * x.shape[2]
        second = second - sum_x @ sum_x.mT / count
        cross = cross - sum_x @ sum_y.mT / count
    return second, cross


def learn(codes: Tensor, step: Tensor, low: Tensor, high: Tensor, h: Tensor, d: Tensor) -> Tensor:
    """Codes with a smaller error than those given, or the same ones.

    Args:
        codes: To start from, counted from the zero point, float32 [groups, inputs, outputs].
        step: s, float32, shaped as one code of each output: [groups, 1, outputs].
        low: The smallest that each code may become, shaped as `codes`.
        high: The largest.
        h: [groups, inputs, inputs].
        d: [groups, inputs, outputs].
    """
    codes = codes.clone()
    gradient = torch.baddbmm(d, h, codes * step, beta=-1)
    curvature = h.diagonal(dim1=1, dim2=2).clamp_min(_SMALLEST)
    for _ in range(_SWEEPS):
        before = codes.clone()
        for start in range(0, codes.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)
            change = _descend(
                codes[:, block],
                step[:, 0],
                low[:, block],
                high[:, block],
                gradient[:, block].clone(),
                h[:, block, block],
                curvature[:, block],
            )
            gradient.baddbmm_(h[:, :, block], change * step)
        if (codes != before).sum() < _FEW * codes.numel():
            break
    return codes


def _descend(
    codes: Tensor,
    step: Tensor,
    low: Tensor,
    high: Tensor,
    gradient: Tensor,
    h: Tensor,
    curvature: Tensor,
) -> Tensor:
    """Moves each of a block's codes to the best value once, in place; gives how far each went."""
    before = codes.clone()
    for i in range(codes.shape[1]):
        best = codes[:, i] - gradient[:, i] / (curvature[:, i, None] * step)
        best = best.round_().clamp_(low[:, i], high[:, i])
        moved = (best - codes[:, i]).mul_(step)
        codes[:, i] = best
        gradient.baddbmm_(h[:, :, i, None], moved[:, None])
    return codes - before


def _patches(layer: nn.Module, x: Tensor) -> Tensor:
    """What meets a weight at each position: [groups, inputs of a group, positions]."""
    if not isinstance(layer, _ConvNd):
        return x.reshape(1, -1, x.shape[-1]).mT
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode)  # noqa: SLF001 ("same" is numbers here)
    axes = len(layer.kernel_size)
    for axis in range(axes):
        dilation = layer.dilation[axis]
        reach = dilation * (layer.kernel_size[axis] - 1) + 1
        x = x.unfold(2 + axis, reach, layer.stride[axis])[..., ::dilation]
    x = _thinned(x, axes)
    x = x.reshape(len(x), layer.groups, -1, *x.shape[2:])
    positions, kernel = range(3, 3 + axes), range(3 + axes, 3 + 2 * axes)
    inputs = x.shape[2] * math.prod(layer.kernel_size)
    return x.permute(1, 2, *kernel, 0, *positions).reshape(layer.groups, inputs, -1)


def _outputs(layer: nn.Module, y: Tensor) -> Tensor:
    """What a layer gives at each position: [groups, outputs of a group, positions]."""
    if not isinstance(layer, _ConvNd):
        return y.reshape(1, -1, y.shape[-1]).mT
    y = _thinned(y, y.dim() - 2)
    return y.transpose(0, 1).reshape(layer.groups, y.shape[1] // layer.groups, -1)


def _thinned(x: Tensor, axes: int) -> Tensor:
    steps = [-(-size // _POSITIONS) for size in x.shape[2 : 2 + axes]]
    return x[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]
