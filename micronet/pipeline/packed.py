"""Packed models that know how they are built."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from micronet.errors import DataError, MicronetError, describe_error
from micronet.pipeline.context import Context, reshaped, start_model
from micronet.plain import structured
from micronet.pruning import Kept, PruningPlan, apply_plan
from micronet.recipe import Fuse, Prune, Quantize, Recipe, to_plain
from micronet.recipe.file import Source, structure
from micronet.recipe.own_code import refuse_unnamed
from micronet.recipe.resolution import resolve_structure
from micronet.storage.packing import fill_packed, read_packed
from micronet.storage.pruned import recipe_in


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
    sizes = [_all_sizes(plans[position]) if position in plans else None for position in changing]
    (example,) = context.example_inputs
    structure = {"recipe": to_plain(recipe), "kept": sizes, "input_shape": list(example.shape)}
    if start := context.start_plans:
        structure["start"] = [_all_sizes(plan) for plan in start]
    return structure


@attrs.frozen
class _Structure:
    """What `structure_after` gives, read back.

    Args:
        recipe: Its model, data, and the steps that changed the structure.
        kept: For each of these steps, what a pruner left of the layers that it touched.
        input_shape: Of the example.
        start: The same as `kept`, of what the recipe's weights had been pruned by.
    """

    recipe: dict[str, Any]
    kept: tuple[dict[str, tuple[int, ...]] | None, ...]
    input_shape: tuple[int, ...]
    start: tuple[dict[str, tuple[int, ...]], ...] = ()


Builder = Callable[[], nn.Module]


def load_packed(path: Path | str, model: nn.Module | Builder | None = None) -> nn.Module:
    """A packed model in its inference form, with the outputs that it was saved with.

    The file may name models and techniques that are registered here, and no other code.

    Args:
        path: A file of `micronet pack`, or of `save_packed`.
        model: A model built like the one that was saved, with any weights; needed where the file
            does not say how, because it was not written by a run. Or what makes the model that
            the file's steps began with; needed where that is code of the user's own.

    Raises:
        DataError: The file can't be read, or does not fit.
        RecipeError: Its model or a technique is not installed here, or it names other code.
    """
    path = Path(path)
    tensors, plain = read_packed(path)
    if isinstance(model, nn.Module):
        return fill_packed(model, tensors, path)
    if plain is None:
        raise DataError(f"{path} does not say how its model is built; give one like it.")
    return fill_packed(_build(_structure(plain, path), path, model), tensors, path)


def packed_recipe(path: Path | str) -> Recipe:
    """How a packed file's model was made: its model, data, and the steps that changed structure.

    Raises:
        DataError: The file can't be read, or does not say.
    """
    _, plain = read_packed(path)
    if plain is None:
        raise DataError(f"{path} does not say how its model is built; `micronet pack` writes that.")
    return _recipe(_structure(plain, path).recipe)


def _structure(plain: dict[str, Any], path: Path | str) -> _Structure:
    try:
        told = structured(plain, _Structure)
    except DataError as error:
        raise DataError(f"{path} does not say how its model is built: {error}.") from error
    pruned = [kept or {} for kept in (*told.start, *told.kept)]
    sizes = [size for kept in pruned for layer in kept.values() for size in layer[:3]]
    possible = all(0 <= size <= _CHANNELS for size in sizes)
    possible &= 0 <= math.prod(told.input_shape) <= _LARGEST
    if len(told.kept) != len(told.recipe.get("steps") or ()) or not possible:
        raise DataError(f"{path} does not say how its model is built: its sizes make no sense.")
    return told


_LARGEST, _CHANNELS = 2**28, 2**20
"""Numbers in an example, and channels of a layer, at most."""


def _build(told: _Structure, path: Path, builder: Builder | None) -> nn.Module:
    recipe = _recipe(told.recipe)
    resolved = resolve_structure(recipe)
    if builder is not None:
        resolved = attrs.evolve(resolved, build_model=builder)
    refuse_unnamed(f"{path}", resolved.build_model)
    try:
        model = start_model(resolved)
        for start in told.start:
            model = apply_plan(model, _first_channels(start))
        example_inputs = (torch.zeros(told.input_shape),)
        for step, technique, kept in zip(recipe.steps, resolved.techniques, told.kept, strict=True):
            plan = None if kept is None else _first_channels(kept)
            model = reshaped(model, step, technique, plan, example_inputs)
    except MicronetError:
        raise
    except Exception as error:  # what a damaged file asks for
        raise DataError(
            f"{path} describes a model that can't be built: {describe_error(error)}."
        ) from error
    return model


def pruned_recipe(path: Path | str) -> Recipe | None:
    """What the model and the data of a pruned model's file are called.

    Returns:
        A recipe without steps; `None` if the file holds no pruned model, or does not say.

    Raises:
        DataError: The file can't be read, or was changed.
    """
    plain = recipe_in(path)
    return None if plain is None else _recipe(plain)


def _recipe(plain: dict[str, Any]) -> Recipe:
    if plain.get("steps"):
        return structure(Source("packed model", plain, {}, Path()))
    plain = {**plain, "steps": ["evaluate"]}
    return attrs.evolve(structure(Source("packed model", plain, {}, Path())), steps=())


def _all_sizes(plan: PruningPlan) -> dict[str, list[int]]:
    return {name: _sizes(kept) for name, kept in plan.layers.items()}


def _sizes(kept: Kept) -> list[int]:
    return [len(kept.outputs), len(kept.inputs), kept.groups, kept.axis]


def _first_channels(sizes: dict[str, tuple[int, ...]]) -> PruningPlan:
    """A plan with the sizes of another; which channels it keeps does not matter."""
    return PruningPlan(
        {
            name: Kept(tuple(range(outputs)), tuple(range(inputs)), groups, axis)
            for name, (outputs, inputs, groups, axis) in sizes.items()
        }
    )
