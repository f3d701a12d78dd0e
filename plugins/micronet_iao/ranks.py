"""Agreement of the ranks of a distributed run on what was computed from one rank's data."""

from __future__ import annotations

import torch
from torch import distributed, nn


@torch.no_grad()
def follow_first_rank(model: nn.Module) -> None:
    """Gives every rank the parameters and buffers of the first one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    for tensor in (*model.parameters(), *model.buffers()):
        distributed.broadcast(tensor.data, 0)
