"""Batch norms whose running statistics are measured anew, as after pruning."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from micronet.graph.modes import modes_kept


def tracking_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Those with running statistics that training moves: none that is frozen in eval mode."""
    with modes_kept(model):
        model.train()
        return [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            and module.training
            and module.running_mean is not None
            and module.num_batches_tracked is not None
        ]


@torch.no_grad()
def measure_statistics(
    model: nn.Module, batches: Iterable[Tensor], accelerator: Accelerator
) -> None:
    """Replaces every running statistic by its mean over some batches, in place.

    The mean over batches is the cumulative average of `torch.optim.swa_utils.update_bn`. Everything
    but the batch norms is in eval mode meanwhile, and no weight changes. Of several processes, each
    gets the mean over the batches of all.

    Args:
        model: On the accelerator's device.
        batches: Images, as many batches on each process.
        accelerator: Where.
    """
    norms = tracking_batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    with modes_kept(model):
        model.eval()
        for norm in norms:
            norm.training, norm.momentum = True, None
            norm.reset_running_stats()
        for images in batches:
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var):
            assert statistic is not None
            statistic.copy_(accelerator.reduce(statistic, "mean"))
