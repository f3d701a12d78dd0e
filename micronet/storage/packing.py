"""Files that are really small: integer codes at their true width."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from micronet.errors import DataError
from micronet.quantization.convert import StoredWeight, convert
from micronet.storage.files import write_bytes

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


def save_packed(
    model: nn.Module, path: Path | str, *, structure: Mapping[str, Any] | None = None
) -> None:
    """Writes what inference needs of a model, quantized weights at their true width.

    Args:
        model: Float, prepared or converted.
        path: A safetensors file. Its metadata says each packed tensor's bits, shape and type.
        structure: How the model is built, as JSON knows it; kept for the reader.
    """
    converted = convert(model)
    stored = {name: m for name, m in converted.named_modules() if isinstance(m, StoredWeight)}
    tensors: dict[str, NDArray[Any]] = {}
    index: dict[str, dict[str, Any]] = {}
    for key, tensor in converted.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        if owner in stored and leaf == "codes":
            tensors[key] = pack(tensor, stored[owner].bits)
            index[key] = {
                "bits": stored[owner].bits,
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype).removeprefix("torch."),
            }
        elif not (_implied(key) or (leaf == "zero_point" and not tensor.any())):
            tensors[key] = tensor.detach().cpu().contiguous().numpy()
    content = {"codes": index, "structure": structure}
    write_bytes(path, save(tensors, metadata={_METADATA: json.dumps(content)}))


def read_packed(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """A packed file's tensors, codes unpacked, and the structure that it was written with.

    Raises:
        DataError: It can't be read, or is no packed file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _METADATA not in metadata:
                raise DataError(f"{path} holds tensors, but no packed model; see micronet pack.")
            content = json.loads(metadata[_METADATA])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        for key, how in content["codes"].items():
            packed, dtype = tensors[key].numpy(), getattr(torch, how["dtype"])
            tensors[key] = unpack(packed, how["bits"], tuple(how["shape"]), dtype)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no readable packed model: {error}") from error
    return tensors, content["structure"]


def fill_packed(
    structure: nn.Module, tensors: Mapping[str, Tensor], origin: Path | str
) -> nn.Module:
    """The inference form of `structure` with the tensors of a packed file.

    Args:
        structure: A model like the one that was saved, with any weights: float, prepared or
            converted.
        tensors: As `read_packed` gives them.
        origin: The file, for the message.

    Raises:
        DataError: They do not fit.
    """
    model = convert(structure)
    state = model.state_dict()
    for key, tensor in state.items():
        if key in tensors or _implied(key):
            state[key] = tensors.get(key, tensor)
        elif key.endswith("zero_point"):
            state[key] = torch.zeros_like(tensor)
    missing = [key for key in state if key not in tensors and not _implied(key)]
    missing = [key for key in missing if not key.endswith("zero_point")]
    extra = [key for key in tensors if key not in state]
    if missing or extra:
        words = f"lacks {missing[0]!r}" if missing else f"has {extra[0]!r} too many"
        raise DataError(f"{origin} does not fit the model: it {words}.")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"{origin} does not fit the model: {reason}") from error
    return model.eval()


def _implied(key: str) -> bool:
    """Whether inference does without a buffer."""
    return ".observer." in key or key.endswith("num_batches_tracked")
