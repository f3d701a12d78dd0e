"""Explicit QuantizeLinear / DequantizeLinear nodes, emitted while torch exports to ONNX."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from micronet.quantization.grid import Grid
from micronet.quantization.quantized_tensor import QuantizedTensor, code_dtype

OPSET = 21
"""The first opset whose Q/DQ knows 16-bit codes."""

_ONNX_TYPES = {torch.uint8: 2, torch.int8: 3, torch.uint16: 4, torch.int16: 5}


def quantize_dequantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    grid: Grid,
    axis: int | None,
    *,
    output_scale: Tensor | None = None,
) -> Tensor:
    """A QuantizeLinear and a DequantizeLinear node; a Clip before them where the engine's integer
    type is wider than the grid.

    Args:
        x: Real numbers.
        scale: Of the grid.
        zero_point: Of the grid.
        grid: The integers.
        axis: Dimension that `scale` runs along.
        output_scale: Scale of the result, where it is another than that of `x`.
    """
    dtype = code_dtype(grid.quant_min, grid.quant_max)
    info = torch.iinfo(dtype)
    if (grid.quant_min, grid.quant_max) != (info.min, info.max) and axis is None:
        low = (grid.quant_min - zero_point) * scale
        high = (grid.quant_max - zero_point) * scale
        x = torch.clamp(x, low, high)
    typed_zero_point = zero_point.to(dtype)
    codes = torch.onnx.ops.symbolic(
        "QuantizeLinear",
        (x, scale, typed_zero_point),
        _axis(axis),
        dtype=_ONNX_TYPES[dtype],
        shape=x.shape,
        version=OPSET,
    )
    output_scale = scale if output_scale is None else output_scale
    return _dequantize(codes, output_scale, typed_zero_point, axis)


def requantize(x: Tensor, scale: Tensor) -> Tensor:
    """Q/DQ nodes on values that are signed 8-bit integers times `scale` already."""
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return quantize_dequantize(x, scale, zero_point, Grid(8, symmetric=True), None)


def dequantize(tensor: QuantizedTensor) -> Tensor:
    """A DequantizeLinear node on stored codes with an integer zero point."""
    zero_point = tensor.zero_point.to(tensor.codes.dtype)
    return _dequantize(tensor.codes, tensor.scale, zero_point, tensor.axis)


def _dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
    result: Tensor = torch.onnx.ops.symbolic(
        "DequantizeLinear",
        (codes, scale, zero_point),
        _axis(axis),
        dtype=torch.float32,
        shape=codes.shape,
        version=OPSET,
    )
    return result


def _axis(axis: int | None) -> Any:
    return {} if axis is None else {"axis": axis}
