"""A step size that learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from micronet.errors import QuantizationError
from micronet.quantization import (
    FakeQuantizer,
    Grid,
    QuantizedTensor,
    check_finite,
    code_dtype,
    qdq,
)


class LearnedStep(FakeQuantizer):
    """code = clamp(round(x / step)), and the gradient of the step as in equations 3 and 5.

    Args:
        grid: With both signs.
        positive: For a tensor whose first batch has no negative value; `None` for weights.
    """

    step: nn.Parameter
    negative: Tensor

    def __init__(self, grid: Grid, positive: Grid | None = None) -> None:
        super().__init__(grid.bits)
        self.signed, self.positive = grid, positive or grid
        self.step = nn.Parameter(torch.tensor(0.0, dtype=torch.float32))
        self.register_buffer("negative", torch.tensor(True))
        self.grid = grid

    @property
    def ready(self) -> bool:
        return bool((self.step > 0).all())

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Sets the step once: 2 mean |x| / sqrt(largest code), over the batches of all ranks."""
        if x.numel() == 0 or bool((self.step != 0).all()):
            return
        x = x.float()
        mean, negative = x.abs().mean(), (x < 0).any()
        if self.positive is not self.signed and distributed.is_initialized():
            both = torch.stack([mean / distributed.get_world_size(), negative.to(mean)])
            distributed.all_reduce(both)
            mean, negative = both[0], both[1] > 0
        check_finite(mean, mean)
        self.negative.copy_(negative)
        self._choose_grid()
        step = 2 * mean / self.grid.quant_max**0.5
        self.step.copy_(torch.where(mean == 0, torch.ones_like(step), step))

    def fake_quantize(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            zero_point = torch.zeros_like(self.step, dtype=torch.int32)
            return qdq.quantize_dequantize(x, self.step.detach(), zero_point, self.grid, self.axis)
        grid = self._choose_grid()
        if not self.ready:
            raise QuantizationError(
                "A step size is not known, or no number any more. Train or calibrate the prepared "
                "model first; if you did, lower the learning rate."
            )
        quantized: Tensor = _Round.apply(x, self._shaped(x), grid.quant_min, grid.quant_max)
        return quantized

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        grid = self.grid
        codes = torch.clamp(torch.round(x / self._shaped(x)), grid.quant_min, grid.quant_max)
        return QuantizedTensor(
            codes.to(code_dtype(grid.quant_min, grid.quant_max)),
            self.step.detach().clone(),
            torch.zeros_like(self.step, dtype=torch.int32),
            self.bits,
            self.axis,
        )

    @torch.no_grad()
    def rescale(self, factor: Tensor) -> None:
        step = torch.where(factor == 0, torch.ones_like(factor), self.step * factor.abs())
        self.step = nn.Parameter(step)
        self.axis = 0

    def _shaped(self, x: Tensor) -> Tensor:
        return self.step if self.axis is None else self.step.reshape(-1, *[1] * (x.dim() - 1))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}step")
        if saved is not None and saved.shape != self.step.shape:
            self.step = nn.Parameter(torch.empty_like(saved))
            self.axis = 0
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._choose_grid()

    def _choose_grid(self) -> Grid:
        """That of what was observed, by the buffer, which others may fill too."""
        self.grid = self.signed if bool(self.negative) else self.positive
        return self.grid


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        scaled = x / step
        codes = torch.clamp(torch.round(scaled), low, high)
        ctx.save_for_backward(scaled, codes, step)
        ctx.limits = low, high
        return codes * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        scaled, codes, step = ctx.saved_tensors
        low, high = ctx.limits
        inside = (scaled >= low) & (scaled <= high)
        of_step = torch.where(inside, codes - scaled, codes) * gradient
        per_step = step.numel() / (scaled.numel() * high)  # its square root scales the gradient
        return gradient * inside, of_step.sum_to_size(step.shape) * per_step**0.5, None, None
