"""Files that are really small: integer codes at their true width."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from micronet.files import write_bytes
from micronet.quantization.convert import StoredWeight, convert

_METADATA = "micronet.packed"
BINARY, TERNARY = 1, 1.5


_TRITS, _TRIT_WEIGHTS = 5, 3 ** np.arange(4, -1, -1)
"""Five ternary digits fit a byte: 3^5 = 243, 1.6 bits a code."""


def pack(codes: Tensor, bits: float) -> NDArray[np.uint8]:
    """Codes of any shape as bytes, in a row.

    Args:
        codes: Integers.
        bits: 1: the codes are -1 and 1, eight to a byte. 1.5: they are -1, 0 and 1, five to a
            byte. 2 to 16: the lowest bits of each code in two's complement.

    Returns:
        ceil(count * bits / 8) bytes, ceil(count / 5) for ternary codes.
    """
    values = codes.to(torch.int32).cpu().numpy().reshape(-1)
    if bits == TERNARY:
        digits = np.pad(values + 1, (0, -len(values) % _TRITS)).reshape(-1, _TRITS)
        return (digits @ _TRIT_WEIGHTS).astype(np.uint8)
    if bits == BINARY:
        return np.packbits(values > 0)
    shifts = np.arange(int(bits) - 1, -1, -1)
    return np.packbits(((values[:, None] >> shifts) & 1).astype(np.uint8))


def unpack(
    packed: NDArray[np.uint8], bits: float, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """The codes that `pack` packed, in their shape and integer type."""
    count = int(np.prod(shape))
    if bits == TERNARY:
        digits = packed[:, None].astype(np.int32) // _TRIT_WEIGHTS % 3
        values = digits.reshape(-1)[:count] - 1
    elif bits == BINARY:
        values = np.unpackbits(packed, count=count).astype(np.int32) * 2 - 1
    else:
        width = int(bits)
        flags = np.unpackbits(packed, count=count * width).reshape(count, width)
        values = flags.astype(np.int32) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int32))
        if dtype.is_signed:
            values = np.where(values >= 1 << (width - 1), values - (1 << width), values)
    return torch.from_numpy(values.astype(np.int32)).reshape(shape).to(dtype)


def save_packed(model: nn.Module, path: Path) -> None:
    """Writes what inference needs of a model, quantized weights at their true width.

    Args:
        model: Float, prepared or converted.
        path: A safetensors file. Its metadata says each packed tensor's bits, shape and type.
    """
    converted = convert(model)
    stored = {name: m for name, m in converted.named_modules() if isinstance(m, StoredWeight)}
    tensors: dict[str, NDArray[np.generic]] = {}
    index: dict[str, dict[str, object]] = {}
    for key, tensor in converted.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        if owner in stored and leaf == "codes":
            tensors[key] = pack(tensor, stored[owner].bits)
            index[key] = {
                "bits": stored[owner].bits,
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype).removeprefix("torch."),
            }
        elif not _only_for_training(key):
            tensors[key] = tensor.detach().cpu().contiguous().numpy()
    write_bytes(path, save(tensors, metadata={_METADATA: json.dumps(index)}))


def _only_for_training(key: str) -> bool:
    return ".observer." in key or key.endswith("num_batches_tracked")
