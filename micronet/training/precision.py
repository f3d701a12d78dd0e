"""Mixed precision: matrix products in 16 bits, weights and sums in 32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16", "float16"]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Inside, torch chooses for each operation whether it computes in 16 bits."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, precision))


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Keeps small gradients from vanishing in float16; for other precisions it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")
