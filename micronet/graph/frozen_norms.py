"""Batch norms of users' own that hold every number fixed, as those of pretrained detectors do."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

_BUFFERS = {"weight", "bias", "running_mean", "running_var"}
_EPS = 1e-5
"""What an author who writes no `eps` down has in his code."""


class FrozenBatchNorm(nn.BatchNorm2d):
    """Torch's batch norm, in eval mode for good; its four tensors are buffers of `frozen`."""

    def __init__(self, frozen: nn.Module) -> None:
        buffers = dict(frozen.named_buffers())
        eps = getattr(frozen, "eps", _EPS)
        super().__init__(len(buffers["running_mean"]), eps, affine=False, device="meta")
        del self.weight, self.bias, self.num_batches_tracked
        self.num_batches_tracked = None
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, buffers[name])
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm:  # noqa: ARG002 (torch's signature)
        """Stays in eval mode."""
        return super().train(False)

    _load_from_state_dict = nn.Module._load_from_state_dict  # noqa: SLF001 (it counts no batches)


def name_frozen_norms(model: nn.Module) -> None:
    """Puts a `FrozenBatchNorm` in the place of each module that computes the same, in place."""
    for name, module in list(model.named_modules()):
        frozen = _as_batch_norm(module) if name else None
        if frozen is not None:
            model.set_submodule(name, frozen)


def _as_batch_norm(module: nn.Module) -> FrozenBatchNorm | None:
    if isinstance(module, FrozenBatchNorm) or dict(module.named_buffers()).keys() != _BUFFERS:
        return None
    if next(module.parameters(), None) is not None:
        return None
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 (torch has no other way)
        return None
    mean = module.get_buffer("running_mean")
    if (
        mean.device.type == "meta"
        or mean.dim() != 1
        or not isinstance(getattr(module, "eps", _EPS), float)
    ):
        return None
    frozen = FrozenBatchNorm(module)
    return frozen if _same(module, frozen, mean) else None


@torch.no_grad()
def _same(module: nn.Module, frozen: nn.Module, mean: Tensor) -> bool:
    """Whether two modules compute the same in both modes, by a small image."""
    count = len(mean)
    image = torch.linspace(-2, 2, 4 * count, dtype=mean.dtype, device=mean.device)
    image = image.view(4, count).t().reshape(1, count, 2, 2).contiguous()
    wanted, close = frozen(image), torch.finfo(mean.dtype).eps ** 0.5
    for training in (False, True):
        trial = copy.deepcopy(module).train(training)  # it may keep statistics
        try:
            given = trial(image)
        except Exception:  # its author meant something else
            return False
        if given.shape != wanted.shape or not torch.allclose(given, wanted, rtol=close, atol=close):
            return False
        if any(not torch.equal(b, module.get_buffer(n)) for n, b in trial.named_buffers()):
            return False
    return True
