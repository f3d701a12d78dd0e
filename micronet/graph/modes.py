"""Train and eval mode, borrowed and given back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Puts every module back into the mode it had; `model.train()` would set them all alike."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while."""
    with modes_kept(model):
        model.eval()
        yield


@contextmanager
def attention_in_parts() -> Iterator[None]:
    """Attention as products of matrices, for those who watch operations.

    Else torch runs it, or a whole encoder layer, as one operation that hides what is in it.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
