"""Pooling to a fixed size from any size: a form of it that exports where sizes may differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor
from torch.overrides import TorchFunctionMode

from micronet.errors import DeployError


class AnySize(TorchFunctionMode):
    """Lets adaptive pooling follow its input's size while a model is exported.

    Torch's own decomposition takes the example's window for that of every image, and the engine
    would answer for another size without a word.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Iterable[Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
            size = _both(args[1] if len(args) > 1 else kwargs["output_size"])
            if size != (1, 1) and func is F.adaptive_avg_pool2d:
                return _adaptive_avg_pool2d(args[0], size)
            if size != (1, 1):
                raise DeployError(
                    f"Adaptive max pooling to {size} can't be exported where height or width may "
                    f"differ."
                )
        return func(*args, **kwargs)


def _adaptive_avg_pool2d(x: Tensor, size: tuple[int | None, int | None]) -> Tensor:
    """What `F.adaptive_avg_pool2d` computes, as two matrix products."""
    over_rows, over_columns = (
        _means(length, windows, x) for length, windows in zip(x.shape[-2:], size, strict=True)
    )
    return over_rows @ x @ over_columns.T


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
