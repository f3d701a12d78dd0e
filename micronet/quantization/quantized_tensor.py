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
        zero_point: int32, shaped as `scale`: the code of real zero.
        bits: Width of a code.
        axis: Dimension that `scale` runs along, `None` for one scale.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    bits: int
    axis: int | None

    def dequantize(self) -> Tensor:
        """The real numbers, float32."""
        scale, zero_point = self.scale, self.zero_point
        if self.axis is not None:
            shape = [1] * self.codes.dim()
            shape[self.axis] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        return (self.codes.to(torch.int32) - zero_point).to(torch.float32) * scale


def code_dtype(quant_min: int, quant_max: int) -> torch.dtype:
    """The smallest torch and ONNX integer type for a range of codes, unsigned if the range is."""
    signed, unsigned = (torch.int8, torch.int16), (torch.uint8, torch.uint16)
    for dtype in unsigned if quant_min >= 0 else signed:
        info = torch.iinfo(dtype)
        if info.min <= quant_min and quant_max <= info.max:
            return dtype
    raise ValueError(f"no integer type of up to 16 bits holds [{quant_min}, {quant_max}]")
