"""Packed models that know how they are built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from micronet.errors import DataError
from micronet.pipeline.context import Context, reshaped, start_model
from micronet.pruning import Kept, PruningPlan
from micronet.recipe import Fuse, Prune, Quantize, Recipe, to_plain
from micronet.recipe.file import Source, structure
from micronet.recipe.resolution import resolve_structure
from micronet.storage.packing import fill_packed, read_packed


def structure_after(context: Context, index: int) -> dict[str, Any]:
    """How the model is built that step `index` left, as JSON knows it."""
    changing = [
        position
        for position, step in enumerate(context.steps[: index + 1])
        if isinstance(step, (Prune, Quantize, Fuse))
    ]
    recipe = attrs.evolve(
        context.resolved.recipe,
        steps=[context.steps[position] for position in changing],
        weights=None,
        requires=(),
    )
    plans = context.plans(index)
    sizes = [
        {name: _sizes(kept) for name, kept in plans[position].layers.items()}
        if position in plans
        else None
        for position in changing
    ]
    (example,) = context.example_inputs
    return {"recipe": to_plain(recipe), "kept": sizes, "input_shape": list(example.shape)}


def load_packed(path: Path | str, model: nn.Module | None = None) -> nn.Module:
    """A packed model in its inference form, with the outputs that it was saved with.

    Args:
        path: A file of `micronet pack`, or of `save_packed`.
        model: A model built like the one that was saved, with any weights; needed where the file
            does not say how, because it was not written by a run.

    Raises:
        DataError: The file can't be read, or does not fit.
        RecipeError: Its model or a technique is not installed here.
    """
    path = Path(path)
    tensors, told = read_packed(path)
    if model is None:
        if told is None:
            raise DataError(f"{path} does not say how its model is built; give one like it.")
        model = _build(told)
    return fill_packed(model, tensors, path)


def packed_recipe(path: Path | str) -> Recipe:
    """How a packed file's model was made: its model, data, and the steps that changed structure.

    Raises:
        DataError: The file can't be read, or does not say.
    """
    _, told = read_packed(path)
    if told is None:
        raise DataError(f"{path} does not say how its model is built; `micronet pack` writes that.")
    return _recipe(told["recipe"])


def _build(told: dict[str, Any]) -> nn.Module:
    recipe = _recipe(told["recipe"])
    resolved = resolve_structure(recipe)
    model = start_model(resolved)
    example_inputs = (torch.zeros(told["input_shape"]),)
    for step, technique, sizes in zip(recipe.steps, resolved.techniques, told["kept"], strict=True):
        plan = None if sizes is None else _first_channels(sizes)
        model = reshaped(model, step, technique, plan, example_inputs)
    return model


def _recipe(plain: dict[str, Any]) -> Recipe:
    if plain["steps"]:
        return structure(Source("packed model", plain, {}, Path()))
    plain = {**plain, "steps": ["evaluate"]}
    return attrs.evolve(structure(Source("packed model", plain, {}, Path())), steps=())


def _sizes(kept: Kept) -> list[int]:
    return [len(kept.outputs), len(kept.inputs), kept.groups, kept.axis]


def _first_channels(sizes: dict[str, list[int]]) -> PruningPlan:
    """A plan with the sizes of another; which channels it keeps does not matter."""
    return PruningPlan(
        {
            name: Kept(tuple(range(outputs)), tuple(range(inputs)), groups, axis)
            for name, (outputs, inputs, groups, axis) in sizes.items()
        }
    )
