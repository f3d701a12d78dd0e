"""Files that are really small: integer codes at their true width."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from micronet.errors import DataError
from micronet.plain import from_json, structured
from micronet.quantization.convert import StoredWeight, convert
from micronet.storage.files import regular, sum_of_json, write_bytes

_METADATA = "micronet.packed"
BINARY, TERNARY = 1, 1.5
_WIDEST = 16


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
    summed = {**content, "sha256": _sum(tensors, content)}
    write_bytes(path, save(tensors, metadata={_METADATA: json.dumps(summed)}))


@attrs.frozen
class _Codes:
    """How a packed tensor's codes are to be unpacked."""

    bits: float
    shape: tuple[int, ...]
    dtype: Literal["int8", "uint8", "int16", "uint16", "int32"]

    def check(self, packed: Tensor) -> None:
        count = math.prod(self.shape)
        if self.bits == TERNARY:
            size = -(-count // _TRITS)
        elif self.bits in range(1, _WIDEST + 1):
            size = -(-count * int(self.bits) // 8)
        else:
            raise DataError(f"no code has {self.bits} bits")
        if min(self.shape, default=1) < 0 or packed.dtype is not torch.uint8 or len(packed) != size:
            raise DataError(f"{self.bits:g} bits of the shape {list(self.shape)} are not stored so")


@attrs.frozen
class _Content:
    """What the metadata of a packed file say."""

    codes: dict[str, _Codes]
    structure: dict[str, Any] | None
    sha256: str


def read_packed(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """A packed file's tensors, codes unpacked, and the structure that it was written with.

    Raises:
        DataError: It can't be read, was changed, or is no packed file.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if _METADATA not in metadata:
            reason = "it holds tensors, and no model; see micronet pack"
            raise DataError(reason)  # noqa: TRY301 (told as the others are)
        told = from_json(metadata[_METADATA], dict[str, Any])
        content = structured(told, _Content)
        arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
        if _sum(arrays, {key: told[key] for key in told if key != "sha256"}) != content.sha256:
            reason = "it was changed since it was written"
            raise DataError(reason)  # noqa: TRY301
        _unpack_all(tensors, content)
    except (OSError, SafetensorError, ValueError, TypeError, DataError) as error:
        raise DataError(f"{path} is no readable packed model: {error}.") from error
    return tensors, content.structure


def _unpack_all(tensors: dict[str, Tensor], content: _Content) -> None:
    for key, how in content.codes.items():
        if key not in tensors:
            raise DataError(f"it lacks {key!r}")
        how.check(tensors[key])
        dtype = getattr(torch, how.dtype)
        tensors[key] = unpack(tensors[key].numpy(), how.bits, how.shape, dtype)


def _sum(tensors: Mapping[str, NDArray[Any]], content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(sum_of_json(content).encode())
    for key in sorted(tensors):
        array = np.ascontiguousarray(tensors[key])
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


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
    for key, tensor in model.state_dict().items():
        if state[key].dtype is not tensor.dtype:
            raise DataError(
                f"{origin} does not fit the model: {key!r} is {tensor.dtype}, not "
                f"{state[key].dtype}."
            )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"{origin} does not fit the model: {reason}") from error
    return model.eval()


def _implied(key: str) -> bool:
    """Whether inference does without a buffer."""
    return ".observer." in key or key.endswith("num_batches_tracked")
