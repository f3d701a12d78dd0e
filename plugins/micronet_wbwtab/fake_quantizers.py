"""Binary and ternary weights, binary activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from micronet.quantization import FakeQuantizer, QuantizedTensor, qdq

_THRESHOLD = 0.7
"""Of mean |w|: the ternary threshold that Li et al. derive for normally distributed weights."""


class _AlwaysRounding(FakeQuantizer):
    """Has no range to learn, and rounds while others learn theirs: what a binary network computes
    with real numbers in the place of signs tells nothing of what it computes with signs.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.rounded(x) if self.mode == "calibrate" else super().forward(x)


class _FewValues(_AlwaysRounding):
    """alpha * code for each weight, one alpha for each output channel.

    Args:
        bits: As `FakeQuantizer` counts them.
        axis: Dimension of the weight that runs over output channels.
    """

    def __init__(self, bits: float, axis: int) -> None:
        super().__init__(bits, axis)

    def codes_and_alpha(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes as real numbers, and alpha, which broadcasts over them."""
        raise NotImplementedError

    def fake_quantize(self, x: Tensor) -> Tensor:
        quantized: Tensor = _StraightThrough.apply(x, self)
        return quantized

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        codes, alpha = self.codes_and_alpha(x)
        scale = alpha.reshape(-1)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return QuantizedTensor(codes.to(torch.int8), scale, zero_point, self.bits, self.axis)

    def rescale(self, factor: Tensor) -> None:
        """Codes and alphas follow from the weight itself, also from the rescaled one."""


class BinaryWeight(_FewValues):
    """Codes sign(w), alpha = mean |w| (Rastegari et al. 2016, equation 6).

    In training the weight itself is centred over its input channels and clamped to [-1, 1] before
    each use, so that both signs stay in balance and no weight runs away from its sign. (One input
    channel, as in a depthwise convolution, has no others to be in balance with.)
    """

    def __init__(self, axis: int) -> None:
        super().__init__(1, axis)
        self.centred = True

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        if self.centred:
            inputs = 1 if self.axis == 0 else 0
            if x.shape[inputs] > 1:
                x.sub_(x.mean(inputs, keepdim=True))
            x.clamp_(-1, 1)

    def codes_and_alpha(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _sign(x), x.abs().mean(_others(x, self.axis), keepdim=True)

    def rescale(self, factor: Tensor) -> None:  # noqa: ARG002 (the rescaled weight tells all)
        """A folded weight holds alpha times its sign; centring it would change the sign."""
        self.centred = False


class TernaryWeight(_FewValues):
    """Codes -1, 0, 1 (Li et al. 2016, equations 5 and 6)."""

    def __init__(self, axis: int) -> None:
        super().__init__(1.5, axis)

    def codes_and_alpha(self, x: Tensor) -> tuple[Tensor, Tensor]:
        others = _others(x, self.axis)
        magnitude = x.abs()
        large = (magnitude > _THRESHOLD * magnitude.mean(others, keepdim=True)).to(x.dtype)
        count = large.sum(others, keepdim=True).clamp_min(1)
        alpha = (magnitude * large).sum(others, keepdim=True) / count
        return torch.sign(x).mul_(large), alpha


class BinaryActivation(_AlwaysRounding):
    """sign(x) with sign(0) = 1; the gradient passes where |x| < 1 (Rastegari et al. 2016)."""

    def __init__(self) -> None:
        super().__init__(1)

    def fake_quantize(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            one = x.new_ones(())
            return qdq.requantize(torch.where(x >= 0, one, -one), one)
        quantized: Tensor = _Sign.apply(x)
        return quantized

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        one = x.new_ones(())
        zero_point = torch.zeros_like(one, dtype=torch.int32)
        return QuantizedTensor(_sign(x).to(torch.int8), one, zero_point, self.bits, None)


def _sign(x: Tensor) -> Tensor:
    return torch.sign(x).add_(0.5).sign_()


def _others(x: Tensor, axis: int | None) -> list[int]:
    return [dimension for dimension in range(x.dim()) if dimension != axis]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor, quantizer: _FewValues) -> Tensor:
        codes, alpha = quantizer.codes_and_alpha(x)
        return codes.mul_(alpha)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, x, -1.0, 1.0)  # type: ignore[no-any-return]
