"""Pruned models in files that need nothing but the unpruned model's own code to be read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from micronet.errors import DataError
from micronet.plain import from_json
from micronet.pruning import PruningPlan, apply_plan
from micronet.storage.files import regular, write_bytes
from micronet.storage.weights import fill, load_state

_PLAN, _CFG = "micronet.pruning_plan", "cfg"


def save_pruned(
    model: nn.Module, plan: PruningPlan | Sequence[PruningPlan], path: Path | str
) -> None:
    """Writes a pruned model's weights and plan as one safetensors file, whole or not at all.

    The metadata hold the plan, and under `cfg` the output channels of the convolutions before the
    last, which the models nin and nin_gc take as their option of that name.

    Args:
        model: The smaller model, be it trained since.
        plan: `PruningResult.plan`; of a model that was pruned several times all, in their order.
        path: The file.
    """
    state = {
        key: tensor.detach().cpu().contiguous().clone()
        for key, tensor in model.state_dict().items()
    }
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    cfg = [layer.out_channels for layer in convolutions[:-1]]
    plans = [plan] if isinstance(plan, PruningPlan) else plan
    written = json.dumps([each.to_json() for each in plans])
    metadata = {_PLAN: written, _CFG: json.dumps(cfg)}
    write_bytes(Path(path), save(state, metadata))


def load_pruned(model_factory: Callable[[], nn.Module], path: Path | str) -> nn.Module:
    """The smaller model with its weights, from a file of `save_pruned`.

    Args:
        model_factory: Makes the unpruned model, with any weights.
        path: The file.

    Raises:
        DataError: It can't be read, holds no pruned model, or does not fit.
        PruningError: It is of another model.
    """
    path = Path(path)
    try:
        with safe_open(regular(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    if _PLAN not in metadata:
        raise DataError(f"{path} holds no pruned model; save_pruned writes one.")
    try:
        plans = [PruningPlan.from_json(text) for text in from_json(metadata[_PLAN], list[str])]
    except DataError as error:
        raise DataError(f"{path} holds no plan that can be read: {error}") from error
    model = model_factory()
    for plan in plans:
        model = apply_plan(model, plan)
    fill(model, load_state(path), path)
    return model
