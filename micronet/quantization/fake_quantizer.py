"""Fake quantization: values rounded to an integer grid and kept in float, with a straight-through
gradient, so that training sees what the engine will compute.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from micronet.errors import QuantizationError
from micronet.graph.leaf import Probe
from micronet.quantization import kernels, qdq
from micronet.quantization.grid import Grid
from micronet.quantization.observation import (
    NotFiniteError,
    ObserverModule,
    RangeObserver,
    ShapedByData,
    check_finite,
)
from micronet.quantization.quantized_tensor import QuantizedTensor, code_dtype


class FakeQuantizer(ShapedByData, Probe, ABC):
    """Base of every quantizer's rounding; one instance watches one tensor.

    Args:
        bits: Width of a code; 1 for the codes -1 and 1, 1.5 for -1, 0 and 1.
        axis: Dimension with a scale of its own for each index; `None` for one scale.
    """

    def __init__(self, bits: float, axis: int | None = None) -> None:
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
        try:
            if self.mode == "calibrate":
                self.watch(x.detach())
                return x
            if self.training and not self.frozen:
                self.observe(x.detach())
        except NotFiniteError as error:
            raise QuantizationError(
                f"NaN or Inf at {_place_of(self)}: the data, the weights before it or the learning "
                f"rate are to blame. What was observed before is unchanged."
            ) from error
        return self.rounded(x)

    def rounded(self, x: Tensor) -> Tensor:
        """`x` as `fake_quantize` rounds it, same dtype: 16-bit types are rounded in float32."""
        return self.fake_quantize(kernels.widened(x)).to(x.dtype)

    @abstractmethod
    def fake_quantize(self, x: Tensor) -> Tensor:
        """`x`, float32 or float64, rounded to the grid; same shape and dtype, differentiable."""

    @abstractmethod
    def quantize(self, x: Tensor) -> QuantizedTensor:
        """`x`, float32 or float64, as integers; dequantized they are what `fake_quantize` gives."""

    def rescale(self, factor: Tensor) -> None:
        """Makes this the quantizer of `factor * x`, with the codes that `x` had.

        Weights' quantizers need it, so that a batch norm can be folded behind them.

        Args:
            factor: One real number, of either sign, for each index of dimension 0.
        """
        raise NotImplementedError(f"{type(self).__name__} does not quantize weights")

    def observe(self, x: Tensor) -> None:
        """Lets the grid follow the data, of any floating-point type; by default it does not.

        Raises:
            NotFiniteError: The data hold NaN or Inf; the grid stays as it was.
        """

    def watch(self, x: Tensor) -> None:
        """As `observe`, but the grid need not follow before `settle`: calibration does not round,
        and a range may take longer to find than the data to see.
        """
        self.observe(x)

    def settle(self) -> None:
        """Lets the grid follow what was watched."""

    @property
    def ready(self) -> bool:
        """Whether the grid is known; without observed data it may not be."""
        return True


class AffineFakeQuantizer(FakeQuantizer):
    """Rounds half to even on an affine grid; see `micronet.quantization.kernels`.

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
        self.register_buffer("scale", torch.tensor(0.0, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))
        self._known = False
        self._unsettled = False

    @property
    def ready(self) -> bool:
        return bool((self.scale > 0).all())

    def fake_quantize(self, x: Tensor) -> Tensor:
        if self._unsettled:  # torch.export takes long over each place where gradients are off
            self.settle()
        # Asked of the buffers, which others may fill, but no more once it is so.
        self._known = self._known or self.ready
        if not self._known:
            raise QuantizationError(
                "A quantizer has seen no data, so its scale is not known. Train or calibrate the "
                "prepared model first."
            )
        if torch.onnx.is_in_onnx_export():
            return qdq.quantize_dequantize(x, self.scale, self.zero_point, self.grid, self.axis)
        return kernels.fake_quantize(
            x, self.scale, self.zero_point, self.grid, self.axis, covered=self._covered
        )

    @property
    def _covered(self) -> bool:
        """Whether the grid was just fitted around every value of the tensor at hand."""
        observed = self.whole and self.training and not self.frozen
        return observed and self.observer is not None and self.observer.covers

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Lets the observer see `x` and moves the grid to the range that it then gives."""
        self.watch(x)
        self.settle()

    @torch.no_grad()
    def watch(self, x: Tensor) -> None:
        if self.observer is None or x.numel() == 0:
            return
        if self.whole:
            if self._unsettled:  # and seen: weights stay during a calibration
                return
            self.observer.restart()
        self.observer(x.float())
        self._unsettled = True

    @torch.no_grad()
    def settle(self) -> None:
        if not self._unsettled or self.observer is None:
            return
        self._unsettled = False
        scale, zero_point = self.grid.scale_and_zero_point(*self.observer.range())
        if not (isinstance(self.observer, RangeObserver) or torch.compiler.is_compiling()):
            check_finite(scale, scale)
        # New tensors: where a module runs twice in a step, the first one's gradient needs its own.
        self.scale, self.zero_point = scale, zero_point
        self._known = True

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        scale, zero_point = self.scale, self.zero_point
        if self.axis is not None:
            scale = kernels.along(self.axis, x, scale)
            zero_point = kernels.along(self.axis, x, zero_point)
        codes = kernels.codes(x, scale, zero_point, self.grid)
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
        # Where the factor is 0 every code is that of 0, and any scale will do.
        self.scale = torch.where(factor == 0, self.scale, self.scale * factor.abs())
        self.axis = 0
        self.observer = None

    def extra_repr(self) -> str:
        symmetry = "symmetric" if self.grid.symmetric else "asymmetric"
        return f"bits={self.bits}, {symmetry}, axis={self.axis}, ready={self.ready}"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._known = self.ready


def _place_of(module: nn.Module) -> str:
    """A module's name in the outermost model that is being called, quoted.

    Modules don't know their names, which change with the model around them. An error looks for it
    among the calls that led to it, so that no other call pays for it.
    """
    place = f"the {type(module).__name__}"
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, nn.Module):
            names = (name for name, child in caller.named_modules() if name and child is module)
            place = next((repr(name) for name in names), place)
        frame = frame.f_back
    return place


def weight_of(layer: nn.Module) -> Tensor:
    """A layer's weight parameter."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
