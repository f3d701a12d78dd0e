"""The moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Exponential moving average of the parameters and of batch norms' statistics.

    After Polyak and Juditsky (1992). The decay begins low, as (1 + n) / (10 + n) after n updates,
    so that the first weights are soon forgotten.

    Args:
        model: Its weights begin the average.
        decay: What stays of the average at an update, above 0 and below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._tensors = {name: tensor.clone() for name, tensor in _averaged(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights after a step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self._tensors.values()), [*_averaged(model).values()], 0)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the average's weights."""
        own = {name: tensor.clone() for name, tensor in _averaged(model).items()}
        self.copy_to(model)
        try:
            yield
        finally:
            _copy(own, model)

    def copy_to(self, model: nn.Module) -> None:
        """Gives the model the average's weights."""
        _copy(self._tensors, model)

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint; the number of updates stands under the empty name."""
        return {"": torch.tensor(self._updates), **self._tensors}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a checkpoint's, which is of the same tensors."""
        self._updates = int(state[""])
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    found = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for prefix, module in model.named_modules():
        if isinstance(getattr(module, "running_mean", None), Tensor):
            for name in ("running_mean", "running_var"):
                found[f"{prefix}.{name}"] = getattr(module, name)
    return found


@torch.no_grad()
def _copy(tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    for name, tensor in _averaged(model).items():
        tensor.copy_(tensors[name])
