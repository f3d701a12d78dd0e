"""Which kernels torch takes: those that give the same bits, and those for channels last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def deterministic() -> Iterator[None]:
    """Asks torch for kernels that give the same bits each time."""
    before = torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]


def channels_last(model: nn.Module) -> nn.Module:
    """Lays convolution weights out as the CPU's and tensor cores' fast kernels want them."""
    return model.to(memory_format=torch.channels_last)


def laid_out(images: Tensor) -> Tensor:
    """Images in memory as `channels_last` has the weights."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images  # noqa: PLR2004
