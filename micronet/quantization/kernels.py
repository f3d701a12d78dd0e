"""The arithmetic of fake quantization, the hot path of quantization-aware training.

torch's own fake_quantize kernels run on the CPU one number at a time. The same arithmetic as a
chain of torch's vectorized operations, all but the first in place and block by block within the
cache, is 15 to 40 times faster there, so that is what the CPU gets; on a GPU, where they are fused
and parallel, the kernels stay. Both compute
(clamp(round(x * (1 / scale)) + zero_point, quant_min, quant_max) - zero_point) * scale
with the same roundings, and pass the gradient where nothing was clamped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from micronet.quantization.grid import Grid

_BLOCK = 1 << 20
"""Values of a large tensor that are worked on together, so that they stay in the cache."""


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    grid: Grid,
    axis: int | None,
    *,
    covered: bool = False,
) -> Tensor:
    """`x` on the grid, same shape and dtype; differentiable in `x`.

    Args:
        x: Real numbers, float32 or float64.
        scale: float32, one, or one for each index of `axis`.
        zero_point: int32, shaped as `scale`.
        grid: The integers.
        axis: Dimension that `scale` runs along, `None` for one scale.
        covered: The caller knows that no value of `x` lies beyond the grid: nothing is clamped,
            and the gradient is the identity.
    """
    if x.is_cuda and x.dtype is torch.float32:
        return _fused(x, scale, zero_point, grid, axis)
    shift: Any = zero_point
    if grid.symmetric:
        shift = 0
    elif axis is not None:
        shift = along(axis, x, zero_point)
    elif not torch.compiler.is_compiling():
        shift = int(zero_point)
    scale = scale if axis is None else along(axis, x, scale)
    low, high = grid.quant_min - shift, grid.quant_max - shift
    result: Tensor = _StraightThrough.apply(x, scale, low, high, covered)
    return result


def widened(x: Tensor) -> Tensor:
    """`x` in a type that tells neighbouring codes apart: float32 for 16-bit types, else its own."""
    return x if x.dtype is torch.float32 or x.dtype is torch.float64 else x.float()


def along(axis: int, x: Tensor, per_channel: Tensor) -> Tensor:
    """A vector shaped so that it broadcasts along one dimension of `x`."""
    shape = [1] * x.dim()
    shape[axis] = -1
    return per_channel.reshape(shape)


def in_memory_order(x: Tensor) -> Tensor:
    """All values of a dense tensor as one vector; other tensors as they are.

    Whole-tensor operations on channels_last images are several times slower than on this view.
    """
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    permuted = x.permute(order)
    return permuted.view(-1) if permuted.is_contiguous() else x


def codes(x: Tensor, scale: Tensor, zero_point: Tensor | None, grid: Grid) -> Tensor:
    """Codes of `x` as real numbers; `zero_point` is `None` where it is 0."""
    rounded = torch.mul(x, scale.reciprocal()).round_()
    if zero_point is not None:
        rounded.add_(zero_point)
    return rounded.clamp_(grid.quant_min, grid.quant_max)


class _StraightThrough(torch.autograd.Function):
    """round(x / scale), clamped to `low` and `high`, times scale.

    With one scale for all, `low` and `high` are plain numbers, which spares many small tensors;
    not while torch.compile looks on, which makes one loop of everything.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Any, high: Any, covered: bool) -> Tensor:
        ctx.covered, ctx.bounds = covered, None
        compiling = torch.compiler.is_compiling()
        if not covered and scale.dim() == 0 and not compiling:
            ctx.save_for_backward(x)
            ctx.bounds = (low - 0.5) * scale.item(), (high + 0.5) * scale.item()
        elif not covered:
            ctx.save_for_backward(x, (low - 0.5) * scale, (high + 0.5) * scale)
        if covered and isinstance(low, int) and low == -high:
            return torch.mul(x, scale.reciprocal()).round_().mul_(scale)
        if x.numel() <= _BLOCK or scale.dim() > 0 or compiling:
            return torch.mul(x, scale.reciprocal()).round_().clamp_(low, high).mul_(scale)
        return _by_blocks(x, scale, low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        if ctx.covered:
            return gradient, None, None, None, None
        x, *ends = ctx.saved_tensors
        if ctx.bounds is not None:
            # Its derivative is 1 between two bounds and 0 elsewhere: the mask that is wanted here.
            passed = torch.ops.aten.hardtanh_backward(gradient, x, *ctx.bounds)
        else:
            low, high = ends
            passed = torch.where((x > low) & (x < high), gradient, 0.0)
        return passed, None, None, None, None


def _by_blocks(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    dense = x if in_memory_order(x).dim() == 1 else x.contiguous()
    result = torch.empty_like(dense)
    blocks = (torch.split(in_memory_order(whole), _BLOCK) for whole in (dense, result))
    for block, rounded in zip(*blocks, strict=True):
        torch.mul(block, scale.reciprocal(), out=rounded).round_().clamp_(low, high).mul_(scale)
    return result


def _fused(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid, axis: int | None) -> Tensor:
    if axis is None:
        return torch.fake_quantize_per_tensor_affine(
            x, scale, zero_point, grid.quant_min, grid.quant_max
        )
    return torch.fake_quantize_per_channel_affine(
        x, scale, zero_point, axis, grid.quant_min, grid.quant_max
    )
