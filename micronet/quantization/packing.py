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


def pack(codes: Tensor, bits: int) -> NDArray[np.uint8]:
    """Codes of any shape as bytes: the lowest `bits` bits of each (two's complement), in a row.

    Args:
        codes: Integers.
        bits: 1 to 16; signed codes lie in [-2^(bits-1), 2^(bits-1) - 1], unsigned in
            [0, 2^bits - 1].

    Returns:
        ceil(count * bits / 8) bytes; the last one is filled with zero bits.
    """
    values = codes.to(torch.int32).cpu().numpy().reshape(-1, 1)
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits(((values >> shifts) & 1).astype(np.uint8))


def unpack(
    packed: NDArray[np.uint8], bits: int, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """The codes that `pack` packed, in their shape and integer type."""
    count = int(np.prod(shape))
    flags = np.unpackbits(packed, count=count * bits).reshape(count, bits).astype(np.int32)
    values = flags @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int32))
    if dtype.is_signed:
        values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
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
