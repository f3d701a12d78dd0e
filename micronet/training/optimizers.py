"""The optimizer of a training, with rates of their own for groups of parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from micronet.errors import RunError, nearest


def make_optimizer(
    model: nn.Module,
    name: str,
    *,
    lr: float,
    weight_decay: float,
    groups: Mapping[str, Mapping[str, float]],
) -> torch.optim.Optimizer:
    """AdamW, or SGD with a momentum of 0.9, for every parameter that requires a gradient.

    Args:
        model: Whose parameters.
        name: `adamw` or `sgd`.
        lr: Learning rate where no group says another.
        weight_decay: The same.
        groups: `lr` and `weight_decay` by patterns of parameters' names; the first that fits
            counts.

    Raises:
        RunError: The model is frozen, or a pattern fits none of its parameters.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise RunError("The model has no parameter that requires a gradient, so none to train.")
    optimizer: Any = torch.optim.SGD if name == "sgd" else torch.optim.AdamW
    more: dict[str, Any] = {"momentum": 0.9} if name == "sgd" else {"fused": True}
    return optimizer(  # type: ignore[no-any-return]
        _grouped(trained, groups), lr=lr, weight_decay=weight_decay, **more
    )


def _grouped(
    trained: Mapping[str, nn.Parameter], groups: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    for pattern in groups:
        if not fnmatch.filter(trained, pattern):
            inner = any(name.startswith(f"{pattern}.") for name in trained)
            hint = f" Did you mean '{pattern}.*'?" if inner else nearest(pattern, trained)
            raise RunError(f"parameters names none that is trained: {pattern!r}.{hint}")
    members: dict[str | None, list[nn.Parameter]] = {None: [], **{key: [] for key in groups}}
    for name, parameter in trained.items():
        fitting = (key for key in groups if fnmatch.fnmatchcase(name, key))
        members[next(fitting, None)].append(parameter)
    return [
        {"params": found, **({} if key is None else groups[key])}
        for key, found in members.items()
        if found
    ]
