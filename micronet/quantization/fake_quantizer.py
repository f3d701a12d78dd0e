"""Fake quantization: values rounded to an integer grid and kept in float, with a straight-through
gradient, so that training sees what the engine will compute.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from micronet.errors import QuantizationError
from micronet.quantization import qdq
from micronet.quantization.grid import Grid
from micronet.quantization.observation import ObserverModule, ShapedByData
from micronet.quantization.quantized_tensor import QuantizedTensor, code_dtype


class FakeQuantizer(ShapedByData, ABC):
    """Base of every quantizer's rounding; one instance watches one tensor.

    Args:
        bits: Width of a code.
        axis: Dimension with a scale of its own for each index; `None` for one scale.
    """

    def __init__(self, bits: int, axis: int | None = None) -> None:
        super().__init__()
        self.bits = bits
        self.axis = axis
        self.mode: Literal["quantize", "calibrate", "off"] = "quantize"
        """What `forward` does: round; observe and pass the values on; or just pass them on."""
        self.frozen = False
        """Once True, the grid no longer follows the data."""

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "off":
            return x
        if self.mode == "calibrate" or (self.training and not self.frozen):
            self.observe(x.detach())
        return x if self.mode == "calibrate" else self.fake_quantize(x)

    @abstractmethod
    def fake_quantize(self, x: Tensor) -> Tensor:
        """`x` rounded to the grid, float32, same shape; differentiable."""

    @abstractmethod
    def quantize(self, x: Tensor) -> QuantizedTensor:
        """`x` as integers; dequantized they equal what `fake_quantize` gives."""

    @abstractmethod
    def rescale(self, factor: Tensor) -> None:
        """Makes this the quantizer of `factor * x`, with the codes that `x` had.

        Args:
            factor: One real number, of either sign, for each index of dimension 0.
        """

    def observe(self, x: Tensor) -> None:
        """Lets the grid follow the data, in training and calibration; by default it does not."""

    @property
    def ready(self) -> bool:
        """Whether the grid is known; without observed data it may not be."""
        return True


class AffineFakeQuantizer(FakeQuantizer):
    """Rounds half to even on an affine grid, through torch's fused kernels.

    code = clamp(round(x / scale) + zero_point, quant_min, quant_max), and the value is
    (code - zero_point) * scale; the gradient passes where the code was not clamped.

    Args:
        grid: The integers to round to.
        observer: Where the range comes from.
        axis: Dimension with a scale of its own for each index; `None` for one scale.
        whole: The tensor is complete at every call, as a weight is and a batch is not: the
            observer starts anew each time and ranks need not share.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        grid: Grid,
        observer: ObserverModule,
        *,
        axis: int | None = None,
        whole: bool = False,
    ) -> None:
        super().__init__(grid.bits, axis)
        self.grid = grid
        self.whole = whole
        self.observer: ObserverModule | None = observer
        observer.synchronized = not whole
        self.register_buffer("scale", torch.tensor(0.0))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))
        self._ready = False

    @property
    def ready(self) -> bool:
        return self._ready

    def fake_quantize(self, x: Tensor) -> Tensor:
        if not self._ready:
            raise QuantizationError(
                "A quantizer has seen no data, so its scale is not known. Train or calibrate the "
                "prepared model first."
            )
        if torch.onnx.is_in_onnx_export():
            return qdq.quantize_dequantize(x, self.scale, self.zero_point, self.grid, self.axis)
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                x, self.scale, self.zero_point, self.grid.quant_min, self.grid.quant_max
            )
        return torch.fake_quantize_per_channel_affine(
            x, self.scale, self.zero_point, self.axis, self.grid.quant_min, self.grid.quant_max
        )

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Lets the observer see `x` and moves the grid to the range that it then gives."""
        if self.observer is None or x.numel() == 0:
            return
        if self.whole:
            self.observer.restart()
        self.observer(x)
        scale, zero_point = self.grid.scale_and_zero_point(*self.observer.range())
        if self.scale.shape != scale.shape:
            self.scale, self.zero_point = scale, zero_point
        else:
            self.scale.copy_(scale)
            self.zero_point.copy_(zero_point)
        self._ready = True

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        scale, zero_point = self.scale, self.zero_point
        if self.axis is not None:
            shape = [1] * x.dim()
            shape[self.axis] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        # The kernels multiply by the reciprocal; dividing could differ in the last bit.
        codes = torch.round(x * scale.reciprocal()) + zero_point
        codes = codes.clamp(self.grid.quant_min, self.grid.quant_max)
        dtype = code_dtype(self.grid.quant_min, self.grid.quant_max)
        return QuantizedTensor(
            codes.to(torch.int32).to(dtype),
            self.scale.clone(),
            self.zero_point.clone(),
            self.bits,
            self.axis,
        )

    @torch.no_grad()
    def rescale(self, factor: Tensor) -> None:
        reflected = self.grid.quant_min + self.grid.quant_max - self.zero_point
        self.zero_point = torch.where(factor < 0, reflected, self.zero_point).to(torch.int32)
        smallest = torch.finfo(torch.float32).tiny
        self.scale = (self.scale * factor.abs()).clamp_min(smallest).to(torch.float32)
        self.axis = 0
        self.observer = None

    def extra_repr(self) -> str:
        symmetry = "symmetric" if self.grid.symmetric else "asymmetric"
        return f"bits={self.bits}, {symmetry}, axis={self.axis}, ready={self._ready}"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._ready = bool((self.scale > 0).all())


def weight_of(layer: nn.Module) -> Tensor:
    """A layer's weight parameter."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
