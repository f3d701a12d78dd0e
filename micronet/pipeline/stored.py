"""A model by what a user names: a run, a checkpoint in it, a packed or a pruned model's file."""

from __future__ import annotations

from pathlib import Path

import attrs
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from micronet.errors import DataError
from micronet.pipeline.context import Context, open_run, renamed
from micronet.pipeline.data import Sets, checked_sets, fitted_task, for_task
from micronet.pipeline.folder import START, RunFolder, steps_of
from micronet.pipeline.packed import load_packed, packed_recipe, pruned_recipe
from micronet.quantization import is_ready
from micronet.recipe import Recipe, step_name
from micronet.recipe.own_code import refuse_unnamed
from micronet.recipe.resolution import resolve_data, resolve_structure, resolve_task
from micronet.recipe.sources import DATA, MODEL, TASK
from micronet.storage.pruned import load_pruned, plans_in
from micronet.techniques import Task
from micronet.training.accelerator import make_accelerator


@attrs.frozen
class Stored:
    """A model that a run or a file of its own holds.

    Args:
        path: The step's record in the run, or the file.
        root: The folder that moves as a whole: the run's, or the file's.
        name: The step's or the file's, without an ending.
        recipe: How it was made.
        model: It, in eval mode, on the accelerator's device.
        float_model: The float model that it came from; `None` for a file.
        sets: Training and test set.
        accelerator: Where it runs.
        remarks: What a user should hear, a sentence each.
    """

    path: Path
    root: Path
    name: str
    recipe: Recipe
    model: nn.Module
    float_model: nn.Module | None
    sets: Sets
    accelerator: Accelerator
    remarks: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What the model is for."""
        return self.sets[0].task

    @property
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two training images, on the CPU."""
        return (torch.stack([self.sets[0][index][0] for index in (0, 1)]),)


def find(
    path: Path | str,
    *,
    cpu: bool = False,
    sets: Sets | None = None,
    model: str | None = None,
    data: str | None = None,
    task: str | None = None,
) -> Stored:
    """The model that a path names.

    Args:
        path: A run's folder, for the last model in it; a checkpoint in its steps/; or a file of
            `micronet pack`, or of `save_pruned`.
        cpu: Stay on the CPU where there is a GPU.
        sets: (training set, test set) in the place of the recipe's.
        model: What makes the model, as `open_run` takes it; for a file the same.
        data: As `open_run` takes it.
        task: As `open_run` takes it.

    Raises:
        DataError: There is none, or its quantizers have seen no data yet.
        RecipeError: What it was made with is not installed here, or is code that must be named.
    """
    path = Path(path)
    step = path.name.partition(".")[0]
    run = path if path.is_dir() else path.parent.parent
    if path.is_dir() or (path.parent.name == "steps" and (run / "recipe.yaml").is_file()):
        context = open_run(run, cpu=cpu, sets=sets, model=model, data=data, task=task)
        stored = _in_run(context, None if path.is_dir() else step, path)
    elif path.is_file():
        recipe = _recipe_in(path, model, data)
        recipe = attrs.evolve(
            recipe,
            model=renamed(recipe.model, model),
            data=renamed(recipe.data, data),
            task=renamed(recipe.task, task),
        )
        builder = resolve_structure(recipe, trusted=[MODEL] if model else []).build_model
        load = resolve_data(recipe.data, trusted=[DATA] if data else [])
        meant = resolve_task(recipe.task, trusted=[TASK] if task else [])
        refuse_unnamed(f"{path}", builder, meant, *(() if sets else (load,)))
        sets = sets or checked_sets(load(), recipe.data.name, meant)
        accelerator = make_accelerator(cpu=cpu)
        pruned = bool(plans_in(path))
        loaded = load_pruned(builder, path).eval() if pruned else load_packed(path, builder)
        loaded = loaded.to(accelerator.device)
        stored = Stored(path, path.parent, step, recipe, loaded, None, sets, accelerator)
        images = tuple(tensor.to(accelerator.device) for tensor in stored.example_inputs)
        meant = fitted_task(meant, loaded, recipe.model.name, images)
        stored = attrs.evolve(stored, sets=for_task(sets, meant))
    else:
        raise DataError(f"There is no run, checkpoint or packed file at {path}.")
    if not is_ready(stored.model):
        raise DataError(f"{path}: the model's quantizers have seen no data yet; take a later step.")
    return stored


def _recipe_in(path: Path, model: str | None, data: str | None) -> Recipe:
    """What a file's model is made of, by the file itself or by what is given."""
    if not plans_in(path):
        return packed_recipe(path)
    recipe = pruned_recipe(path)
    if recipe is not None:
        return recipe
    if model is None or data is None:
        raise DataError(
            f"{path} does not say what its model and its data are called: name them, as in "
            f"--model shop:make_model --data shop:load_data."
        )
    return Recipe(model=model, data=data, steps=())


def _in_run(context: Context, step: str | None, path: Path) -> Stored:
    """A run's model after a step, or after the last one that is finished."""
    count = len(context.folder.records(context.names()))
    finished = [
        index
        for index in range(context.first, context.first + count)
        if step in (None, context.name(index))
    ]
    if not finished:
        raise DataError(f"{path} is no finished step of a run that leaves a model.")
    name = context.name(finished[-1])
    remarks: tuple[str, ...] = ()
    if step is None and finished[-1] + 1 < len(context.steps):
        remarks = (f"{path} is not finished: this is its model after {name}.",)
    return Stored(
        context.folder.record(name),
        context.folder.path,
        name,
        attrs.evolve(context.resolved.recipe, steps=context.steps[: finished[-1] + 1]),
        context.model_after(finished[-1]).eval(),
        context.model_after(context.float_index()).eval(),
        (context.train_set, context.test_set),
        context.accelerator,
        remarks,
    )


def packed_file(path: Path | str) -> tuple[Path, tuple[str, ...]]:
    """The packed model of a run: its last one, or that of the step whose checkpoint is given.

    Returns:
        The file, and what a user should hear, a sentence each.

    Raises:
        DataError: There is none: no run, or no quantized model in it; or something was lost or
            changed.
    """
    path = Path(path)
    folder = RunFolder(path if path.is_dir() else path.parent.parent)
    recipe = folder.stored_recipe() if path.exists() else None
    if recipe is None:
        raise DataError(f"There is no run at {path}.")
    keys = [key for key, _ in steps_of(recipe)]
    names = [step_name(number, key) for number, key in enumerate(keys, 1)]
    names = names if keys[:1] == ["train"] else [START, *names]
    done = names[: len(folder.records(names))]
    if not path.is_dir():
        done = [name for name in done if name == path.name.partition(".")[0]]
    packed = folder.packed_after(done)
    if packed is None:
        raise DataError(f"{path} holds no quantized model that could be packed.")
    if path.is_dir() and done != names:
        return packed, (f"{path} is not finished: this is its model after {done[-1]}.",)
    return packed, ()
