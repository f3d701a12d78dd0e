"""DoReFa's two grids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from micronet.quantization import FakeQuantizer, Grid, QuantizedTensor, along, code_dtype, qdq

_SCALE = 0.1
"""DoReFa clamps 0.1 x, so that activations of batch-normed networks rarely reach the bound."""


class DoReFaWeight(FakeQuantizer):
    """w_q = 2 round(u n) / n - 1, u = tanh(w) / (2 max|tanh(w)|) + 1/2, n = 2^bits - 1.

    The codes round(u n) lie in [0, n] and real zero lies in the middle of them, at n / 2. The
    gradient is that of tanh(w) / max|tanh(w)|, the maximum taken for a constant.

    Args:
        bits: Width of the codes, 2 to 16.
    """

    scale: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.levels = (1 << bits) - 1
        self.register_buffer("scale", torch.tensor(2.0 / self.levels, dtype=torch.float32))

    def fake_quantize(self, x: Tensor) -> Tensor:
        if self.axis is not None:
            scale = along(self.axis, x, self.scale)
            quantized = (self._fixed_codes(x) - self.levels / 2) * scale
            return x + (quantized - x).detach()
        rounded: Tensor = _TanhRounding.apply(x, self.levels, self.scale)
        return rounded

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        if self.axis is not None:
            codes = self._fixed_codes(x)
        else:
            squashed = torch.tanh(x)
            codes = _rounded(squashed, squashed.abs().amax(), self.levels)
        return QuantizedTensor(
            codes.to(torch.int32).to(code_dtype(0, self.levels)),
            self.scale.clone(),
            torch.full_like(self.scale, self.levels / 2),
            self.bits,
            self.axis,
        )

    @torch.no_grad()
    def rescale(self, factor: Tensor) -> None:
        """From here on the grid is fixed, with a scale for each output channel."""
        self.scale = self.scale * factor.abs()
        self.axis = 0

    def _fixed_codes(self, x: Tensor) -> Tensor:
        codes = torch.round(x / along(0, x, self.scale) + self.levels / 2)
        return codes.clamp_(0, self.levels)


class DoReFaActivation(FakeQuantizer):
    """x_q = round(clamp(0.1 x, 0, 1) n) / n, n = 2^bits - 1; the gradient passes inside.

    Args:
        bits: Width of the codes, 2 to 16.
    """

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.levels = (1 << bits) - 1

    def fake_quantize(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            # The engine's Q and DQ may have scales of their own: the factor costs nothing.
            grid = Grid(int(self.bits), symmetric=False)
            into, out_of = x.new_tensor(1 / (_SCALE * self.levels)), x.new_tensor(1 / self.levels)
            zero = torch.zeros_like(into, dtype=torch.int32)
            return qdq.quantize_dequantize(x, into, zero, grid, None, output_scale=out_of)
        quantized: Tensor = _ClampedRounding.apply(x, self.levels)
        return quantized

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        codes = (x * _SCALE).clamp_(0, 1).mul_(self.levels).round_()
        scale = x.new_tensor(1 / self.levels)
        return QuantizedTensor(
            codes.to(torch.int32).to(code_dtype(0, self.levels)),
            scale,
            torch.zeros_like(scale, dtype=torch.int32),
            self.bits,
            None,
        )


def _rounded(squashed: Tensor, largest: Tensor, levels: int) -> Tensor:
    """Codes of tanh(w) in [0, levels], as real numbers."""
    largest = largest.clamp_min(torch.finfo(torch.float32).tiny)
    return (squashed / (2 * largest)).add_(0.5).mul_(levels).round_()


class _TanhRounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int, scale: Tensor) -> Tensor:
        squashed = torch.tanh(x)
        largest = squashed.abs().amax()
        ctx.save_for_backward(squashed, largest)
        return _rounded(squashed, largest, levels).sub_(levels / 2).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        squashed, largest = ctx.saved_tensors
        slope = torch.ops.aten.tanh_backward(gradient, squashed)
        return slope.div_(largest.clamp_min(torch.finfo(torch.float32).tiny)), None, None


class _ClampedRounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(x)
        return torch.mul(x, _SCALE).clamp_(0, 1).mul_(levels).round_().mul_(1 / levels)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        passed = torch.ops.aten.hardtanh_backward(gradient, x, 0.0, 1 / _SCALE)
        return passed.mul_(_SCALE), None
