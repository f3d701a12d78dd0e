"""The state of observers: buffers that follow what a tensor's values have been."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from micronet.errors import QuantizationError
from micronet.quantization.kernels import in_memory_order


class NotFiniteError(QuantizationError):
    """A tensor to observe holds NaN or Inf. Raise it before anything is stored.

    The fake quantizer that called the observer, and its place in the model, go into the message.
    """


class ShapedByData(nn.Module):
    """A module whose buffers take their shapes from data, so loading may change them too.

    A state_dict with nothing for it, such as the float model's, leaves it as it is. So does a
    change of the model's dtype: `model.half()` moves no range and no scale to half precision.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ShapedByData:
        def keeping_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        result: ShapedByData = super()._apply(keeping_dtype, recurse)  # type: ignore[no-untyped-call]
        return result

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any
    ) -> None:
        if not any(key.startswith(prefix) for key in state_dict):
            return
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is not None and saved is not None and saved.shape != buffer.shape:
                self._buffers[name] = buffer.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ObserverModule(ShapedByData, ABC):
    """Watches one tensor, batch by batch.

    Args:
        axis: Dimension with a range of its own for each index; `None` for one range for all.
    """

    covers: ClassVar[bool] = False
    """Whether `range` always holds every value of the batch seen last."""

    def __init__(self, axis: int | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.synchronized = True
        """Whether ranks of a distributed run share what they see; weights are the same on all."""

    @abstractmethod
    def forward(self, x: Tensor) -> None:
        """Takes in one batch, float32; gradients do not pass.

        Raises:
            NotFiniteError: The batch holds NaN or Inf; what was known before stays.
        """

    @abstractmethod
    def range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest real number to cover: scalars, or one for each index of `axis`."""

    @abstractmethod
    def restart(self) -> None:
        """Forgets everything; called before each look at a tensor that is whole every time."""


class RangeObserver(ObserverModule):
    """An observer that needs no more of a batch than its extremes.

    Shares them across ranks, so that each rank has the range of the whole batch.
    """

    low: Tensor
    high: Tensor

    def __init__(self, axis: int | None = None) -> None:
        super().__init__(axis)
        self.register_buffer("low", torch.tensor(torch.inf, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(-torch.inf, dtype=torch.float32))

    @abstractmethod
    def update(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The range after a batch with these extremes, shaped as they are.

        Before the first batch, and after `restart`, the range so far is empty: `self.low` is
        inf and `self.high` is -inf.
        """

    @torch.no_grad()
    def forward(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        low, high = extremes(x, self.axis)
        low, high = share(low.float(), high.float(), enabled=self.synchronized)
        if self.training and (not low.is_cpu or torch.compiler.is_compiling()):
            low, high = self._if_finite(low, high)
        else:
            check_finite(low, high)
            low, high = self.update(low, high)
        if self.low.shape != low.shape:
            self.low, self.high = torch.empty_like(low), torch.empty_like(high)
        self.low.copy_(low)
        self.high.copy_(high)

    def _if_finite(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """What `update` gives, or the range so far where the batch is not finite.

        A GPU at work and a compiled graph can't be asked, as an error would have to.
        """
        finite = (high - low < torch.inf).all()
        new_low, new_high = self.update(low, high)
        return torch.where(finite, new_low, self.low), torch.where(finite, new_high, self.high)

    def range(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    @torch.no_grad()
    def restart(self) -> None:
        self.low.fill_(torch.inf)
        self.high.fill_(-torch.inf)


def share(low: Tensor, high: Tensor, *, enabled: bool) -> tuple[Tensor, Tensor]:
    """The smallest `low` and the largest `high` of all ranks of a distributed run.

    Args:
        low: This rank's.
        high: This rank's, shaped as `low`.
        enabled: False for a tensor that is the same on all ranks.
    """
    if not (enabled and distributed.is_available() and distributed.is_initialized()):
        return low, high
    # A maximum loses NaN on some ranks; each must know of the others' to stop with them.
    both = torch.stack([-low, high]).nan_to_num_(torch.inf, torch.inf, -torch.inf)
    distributed.all_reduce(both, op=distributed.ReduceOp.MAX)
    return -both[0], both[1]


def check_finite(low: Tensor, high: Tensor) -> None:
    """Refuses the extremes of a tensor that holds NaN or Inf.

    Args:
        low: The smallest value, one or one for each channel.
        high: The largest, shaped as `low`.

    Raises:
        NotFiniteError: It does.
    """
    if low.is_meta:
        return
    if low.dim() == 0:
        finite = math.isfinite(low.item()) and math.isfinite(high.item())
    else:  # one number tells, unless it overflows
        total = (low + high).sum().item()
        finite = math.isfinite(total) or bool((low.isfinite() & high.isfinite()).all())
    if not finite:
        raise NotFiniteError("A tensor holds NaN or Inf.")


def extremes(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest value: scalars, or [channels] along `axis`."""
    if axis is None:
        return torch.aminmax(in_memory_order(x))
    # Two passes with amin and amax take a twentieth of the time of one with aminmax(dim=...), and
    # half as long over rows of memory.
    values = in_memory_order(x)
    if values.dim() == 1 and x.stride(axis) == max(x.stride()):
        rows = values.view(x.shape[axis], -1)
        return rows.amin(1), rows.amax(1)
    others = [dimension for dimension in range(x.dim()) if dimension != axis % x.dim()]
    return x.amin(others), x.amax(others)
