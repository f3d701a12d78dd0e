"""A loss that makes a model answer as its teacher does, with or without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from micronet.errors import RunError, blaming, nearest
from micronet.techniques import Task

_NO_OUTPUTS = "A teacher needs a model that gives outputs in training, and this one fails"
_MAPS = 3
"""Dimensions from which on a feature has places beside its channels."""


@attrs.frozen
class Distillation:
    """The teacher's part of a loss.

    Args:
        teacher: A model in eval mode, on the device of the training.
        task: Compares the outputs.
        temperature: Softens the teacher's probabilities.
        features: Modules of both whose attention maps are compared too.
    """

    teacher: nn.Module
    task: Task
    temperature: float
    features: Sequence[str] = ()

    def __call__(self, model: nn.Module, inputs: Tensor) -> tuple[Any, Tensor]:
        """A model's outputs for a batch, and how far they are from the teacher's.

        Raises:
            RunError: The two give outputs that can't be compared, or a feature is not there.
        """
        student = extract_model_from_parallel(model)
        with _maps(self.teacher, self.features) as theirs, torch.no_grad():
            wanted = self.teacher(inputs)
        with _maps(student, self.features) as own, blaming(_NO_OUTPUTS, RunError):
            outputs = model(inputs)
        loss = self.task.imitation(outputs, wanted, self.temperature)
        for name in self.features:
            loss = loss + _apart(own, theirs, name)
        return outputs, loss


def _apart(own: dict[str, Tensor], theirs: dict[str, Tensor], name: str) -> Tensor:
    for maps, whose in ((own, "model"), (theirs, "teacher")):
        if name not in maps:
            raise RunError(f"features: the {whose} does not call {name!r}, or it gives no maps.")
    return F.mse_loss(_attention(own[name]), _attention(theirs[name])) * own[name][0, 0].numel()


def _attention(feature: Tensor) -> Tensor:
    """Where a feature [batch, channels, ...] is large: [batch, places], of norm 1.

    Of whatever number of channels; after Zagoruyko and Komodakis, "Paying More Attention to
    Attention" (2017).
    """
    return F.normalize(feature.float().pow(2).mean(1).flatten(1))


@contextmanager
def _maps(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collects what modules give, as long as it is open."""
    modules, found = dict(model.named_modules()), {}
    for name in names:
        if name not in modules:
            raise RunError(f"features names no module: {name!r}.{nearest(name, modules)}")

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() >= _MAPS:
                found[name] = output

        return hook

    hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
