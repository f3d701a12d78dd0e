"""Pooling to a fixed size from any size: a form of it that exports where sizes may differ."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from micronet.deployment.replacing import Replacing
from micronet.errors import DeployError


def any_size() -> Replacing:
    """A context in which adaptive pooling follows its input's size.

    Torch's own decomposition takes the example's window for that of every image, and the engine
    would answer for another size without a word.
    """
    return Replacing(
        {F.adaptive_avg_pool2d: _adaptive_avg_pool2d, F.adaptive_max_pool2d: _adaptive_max_pool2d}
    )


def _adaptive_max_pool2d(input: Tensor, output_size: Any, **kwargs: Any) -> Any:  # noqa: A002 (torch's name)
    size = _both(output_size)
    if size == (1, 1):
        return F.adaptive_max_pool2d(input, output_size, **kwargs)
    raise DeployError(
        f"Adaptive max pooling to {size} can't be exported where height or width may differ."
    )


def _adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:  # noqa: A002 (torch's name)
    """As two matrix products, unless it is to one value."""
    size = _both(output_size)
    if size == (1, 1):
        return F.adaptive_avg_pool2d(input, output_size)
    over_rows, over_columns = (
        _means(length, windows, input)
        for length, windows in zip(input.shape[-2:], size, strict=True)
    )
    return over_rows @ input @ over_columns.T


def _means(length: int, windows: int | None, like: Tensor) -> Tensor:
    """[windows, length]: row i holds 1/n where window i has its n values, else 0.

    Window i reaches from floor(i length / windows) to ceil((i + 1) length / windows); `None`
    stands for as many windows as values.
    """
    windows = length if windows is None else windows
    window = torch.arange(windows, device=like.device)[:, None]
    place = torch.arange(length, device=like.device)[None]
    inside = (place >= window * length // windows) & (
        place < ((window + 1) * length + windows - 1) // windows
    )
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def _both(size: Any) -> tuple[int | None, int | None]:
    height, width = (size, size) if isinstance(size, int) or size is None else size
    return height, width
