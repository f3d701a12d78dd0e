"""Network in network for 3x32x32 images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from micronet import registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Net"]


def Net(cfg: Sequence[int] | None = None, num_classes: int = 10) -> nn.Module:  # noqa: N802 (the documented name)
    """float32 [batch, 3, 32, 32] -> logits [batch, num_classes].

    Args:
        cfg: Output channels of the eight layers before the last; `None` for the full network.
        num_classes: Classes to tell apart.

    Raises:
        OptionError: Such channels do not fit.
    """
    options = {} if cfg is None else {"cfg": tuple(cfg)}
    net: nn.Module = registry.create("model", "nin", num_classes=num_classes, **options).build()
    return net
