"""The sparsity term of sparse training (Liu et al. 2017, "Learning Efficient Convolutional Networks
through Network Slimming").
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from micronet.errors import PruningError


def add_l1_gradient(model: nn.Module, strength: float) -> None:
    """Adds strength * sign(gamma) to the gradient of every batch norm's gamma.

    Raises:
        PruningError: No batch norm has one.
    """
    gammas = [
        module.weight
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.weight is not None
    ]
    if not gammas:
        raise PruningError(
            f"{type(model).__name__} has no batch norms with gammas, which the sparsity term draws "
            f"to zero. Without sparsity, it is pruned by the norms of its filters."
        )
    trained = [gamma for gamma in gammas if gamma.grad is not None]
    if not trained:
        return
    torch._foreach_add_(  # torch's own optimizers are built on it
        [gamma.grad for gamma in trained],  # type: ignore[misc]
        [gamma.detach().sign() for gamma in trained],
        alpha=strength,
    )
