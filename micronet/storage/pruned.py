"""Pruned models in files that need nothing but the unpruned model's own code to be read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from micronet.errors import DataError
from micronet.plain import from_json
from micronet.pruning import PruningPlan, apply_plan
from micronet.storage.files import regular, write_bytes
from micronet.storage.plans import read_plans, write_plans
from micronet.storage.weights import fill, load_state

_PLAN, _CFG = "micronet.pruning_plan", "cfg"
_RECIPE, _SUM = "micronet.recipe", "micronet.sha256"


def save_pruned(
    model: nn.Module,
    plan: PruningPlan | Sequence[PruningPlan],
    path: Path | str,
    *,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Writes a pruned model's weights and plan as one safetensors file, whole or not at all.

    The metadata hold the plan, and under `cfg` the output channels of the convolutions before the
    last, which the models nin and nin_gc take as their option of that name.

    Args:
        model: The smaller model, be it trained since.
        plan: `PruningResult.plan`; of a model that was pruned several times all, in their order.
        path: The file.
        recipe: What the unpruned model and its data are called, as JSON knows a recipe without
            steps; kept for the reader.
    """
    state = {
        key: tensor.detach().cpu().contiguous().clone()
        for key, tensor in model.state_dict().items()
    }
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    cfg = [layer.out_channels for layer in convolutions[:-1]]
    plans = [plan] if isinstance(plan, PruningPlan) else plan
    metadata = {_PLAN: write_plans(plans), _CFG: json.dumps(cfg)}
    if recipe is not None:
        metadata[_RECIPE] = json.dumps(recipe)
    metadata[_SUM] = _sum(state, metadata)
    write_bytes(Path(path), _in_order(save(state, metadata)))


def load_pruned(model_factory: Callable[[], nn.Module], path: Path | str) -> nn.Module:
    """The smaller model with its weights, from a file of `save_pruned` or of a recipe's run.

    Args:
        model_factory: Makes the unpruned model, with any weights.
        path: The file; of a run, the checkpoint of a prune step or of a train step after it.

    Raises:
        DataError: It can't be read, was changed, holds no pruned model, or does not fit.
        PruningError: It is of another model.
    """
    if not (plans := plans_in(path)):
        raise DataError(
            f"{path} holds no pruned model; save_pruned and the prune steps of runs write one."
        )
    model = _shrunk(model_factory(), plans)
    fill(model, load_state(path), path)
    return model


def pruned_as_in(model: nn.Module, path: Path | str) -> nn.Module:
    """A model made smaller as one that a file of weights holds, with weights of its own.

    Args:
        model: The unpruned model; it is the result where the file holds no pruned one.
        path: The file.

    Raises:
        DataError: As `plans_in`.
        PruningError: The file is of another model.
    """
    return _shrunk(model, plans_in(path))


def _shrunk(model: nn.Module, plans: Sequence[PruningPlan]) -> nn.Module:
    for plan in plans:
        model = apply_plan(model, plan)
    return model


def plans_in(path: Path | str) -> tuple[PruningPlan, ...]:
    """How the model in a file of weights was pruned, round for round; empty if it was not.

    Raises:
        DataError: A pruned model's file can't be read, or was changed.
    """
    metadata = _checked_metadata(path)
    try:
        return read_plans(metadata[_PLAN]) if _PLAN in metadata else ()
    except DataError as error:
        raise DataError(f"{path} holds no plan that can be read: {error}") from error


def recipe_in(path: Path | str) -> dict[str, Any] | None:
    """What a pruned model's file was written with as its recipe, `None` if with none.

    Raises:
        DataError: It can't be read, or was changed.
    """
    metadata = _checked_metadata(path)
    try:
        if _RECIPE not in metadata:
            return None
        return from_json(metadata[_RECIPE], dict[str, Any])
    except DataError as error:
        raise DataError(f"{path} holds no recipe that can be read: {error}") from error


def _checked_metadata(path: Path | str) -> dict[str, str]:
    """A safetensors file's metadata, which must fit its tensors; empty for other files."""
    try:
        with safe_open(regular(path), framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if _SUM in metadata:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        if Path(path).suffix == ".safetensors":
            raise DataError(f"{path} can't be read: {error}") from error
        return {}
    except OSError as error:
        raise DataError(f"{path} can't be read: {error}") from error
    expected = metadata.pop(_SUM, None)
    if expected is not None and _sum(state, metadata) != expected:
        raise DataError(f"{path} was changed since it was written.")
    return metadata


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted, which safetensors writes in any order."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)  # tensors begin at a multiple of 8 bytes
    return len(written).to_bytes(8, "little") + written + content[start:]


def _sum(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for key in sorted(state):
        tensor = state[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
