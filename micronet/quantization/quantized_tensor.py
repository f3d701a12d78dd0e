"""The one intermediate form: integer codes and how they map to real numbers."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class QuantizedTensor:
    """Integer codes on a grid: real = (code - zero_point) * scale.

    Args:
        codes: Integers in the shape of the tensor; dtype as `code_dtype` gives it.
        scale: float32, one number, or one for each index of `axis`.
        zero_point: Shaped as `scale`: the code of real zero. int32, or float32 with halves where
            real zero lies between two codes.
        bits: Width of a code. 1 stands for the codes -1 and 1, and 1.5 for -1, 0 and 1.
        axis: Dimension that `scale` runs along, `None` for one scale.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    bits: float
    axis: int | None

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The real numbers in a floating-point type; 16-bit ones are rounded from float32."""
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        scale, zero_point = self.scale.to(wide), self.zero_point
        if self.axis is not None:
            shape = [1] * self.codes.dim()
            shape[self.axis] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        return ((self.codes.to(wide) - zero_point) * scale).to(dtype)

    def with_integer_zero_point(self) -> QuantizedTensor:
        """The same real numbers, on a grid that engines know.

        ONNX has no half zero points. Doubling codes and zero point and halving the scale is
        exact; it takes one more bit, so 8-bit codes need a 16-bit type.
        """
        if not self.zero_point.is_floating_point():
            return self
        middle = self.zero_point.reshape(-1)[0]  # half zero points lie in the middle of a grid
        codes = 2 * self.codes.to(torch.int32) - (2 * middle).to(torch.int32)
        bound = int(2 * middle)
        return attrs.evolve(
            self,
            codes=codes.to(code_dtype(-bound, bound)),
            scale=self.scale / 2,
            zero_point=torch.zeros_like(self.zero_point, dtype=torch.int32),
        )


def code_dtype(quant_min: int, quant_max: int) -> torch.dtype:
    """The smallest torch and ONNX integer type for a range of codes, unsigned if the range is."""
    signed, unsigned = (torch.int8, torch.int16), (torch.uint8, torch.uint16)
    for dtype in unsigned if quant_min >= 0 else signed:
        info = torch.iinfo(dtype)
        if info.min <= quant_min and quant_max <= info.max:
            return dtype
    raise ValueError(f"no integer type of up to 16 bits holds [{quant_min}, {quant_max}]")
