"""What each step of a recipe does to the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from micronet.errors import DataError, RunError
from micronet.pipeline.context import Context
from micronet.pipeline.data import held_out
from micronet.pipeline.deployment import deploy
from micronet.pipeline.folder import Record
from micronet.pipeline.measuring import measure
from micronet.pipeline.progress import Bar
from micronet.recipe import (
    Calibrate,
    Deploy,
    Evaluate,
    Freeze,
    Fuse,
    Prune,
    Quantize,
    Train,
)
from micronet.storage.epochs import load_epoch, save_epoch
from micronet.storage.weights import fill
from micronet.techniques import Pruner, Quantizer
from micronet.training.batch_norms import measure_statistics
from micronet.training.evaluation import Images, collated, read
from micronet.training.loop import TrainingOptions, train
from micronet.training.resuming import TrainingState


def take_step(context: Context, index: int, bar: Bar) -> Record:
    """Does step `index` to the model that the step before left, and measures it.

    -1 stands for the start: the model that the recipe begins with is measured as it is.
    """
    try:
        if index < 0:
            return Record(measure(context, index, context.model_after(index)))
        model = context.model_after(index - 1)
        return _ACTIONS[type(context.steps[index])](context, index, model, bar)
    except RunError as error:
        raise RunError(f"Step {context.name(index)}: {error}") from error


def _train(context: Context, index: int, model: nn.Module, bar: Bar) -> Record:
    step = context.steps[index]
    assert isinstance(step, Train)
    checkpoint = context.folder.epoch(context.name(index))

    def save(state: TrainingState) -> None:
        if context.accelerator.is_main_process:
            save_epoch(attrs.asdict(state, recurse=False), checkpoint)

    regularize = None
    if step.sparsity is not None:
        pruner, strength = _next_pruner(context, index), step.sparsity

        def regularize(bare: nn.Module) -> None:
            pruner.regularize(bare, strength)

    train_set: Images = context.train_set
    watched: Images = context.test_set
    if step.chooses:
        train_set, watched = held_out(context.train_set, context.resolved.recipe.seed)
    curve = train(
        model,
        train_set,
        TrainingOptions.of(step),
        task=context.task,
        accelerator=context.accelerator,
        seed=context.seed(index),
        objective=context.objective(index),
        watched=watched,
        regularize=regularize,
        resume=_resumed(checkpoint, model) if os.path.lexists(checkpoint) else None,
        on_epoch=save,
        on_batch=bar.update,
    )
    return Record(attrs.evolve(measure(context, index, model), curve=curve))


def _resumed(checkpoint: Path, model: nn.Module) -> TrainingState:
    """An epoch's checkpoint, which must fit the model."""
    try:
        state = TrainingState(**load_epoch(checkpoint))
        fill(model, state.model, checkpoint)
    except DataError as error:
        raise DataError(f"{error} Without it the step begins anew.") from error
    except (TypeError, AttributeError) as error:
        raise DataError(
            f"{checkpoint} is no checkpoint: {error}. Without it the step begins anew."
        ) from error
    return state


def _next_pruner(context: Context, index: int) -> Pruner:
    """The pruner that a sparse training prepares for; resolution made sure of one."""
    later = range(index + 1, len(context.steps))
    pruner: Pruner = next(
        context.technique(i) for i in later if isinstance(context.steps[i], Prune)
    )
    return pruner


def _prune(context: Context, index: int, model: nn.Module, _bar: Bar) -> Record:
    result = context.technique(index).prune(model.cpu(), context.example_inputs)
    smaller = result.model.to(context.accelerator.device)
    row = measure(context, index, smaller, (*context.pruning(index - 1), result.plan))
    notes = [*row.notes, *result.remarks]
    return Record(attrs.evolve(row, notes=notes, reasons=result.reasons), result.plan.to_json())


def _quantize(context: Context, index: int, model: nn.Module, _bar: Bar) -> Record:
    prepared = context.technique(index).prepare(model.cpu(), context.example_inputs)
    return Record(measure(context, index, prepared.to(context.accelerator.device)))


def _calibrate(context: Context, index: int, model: nn.Module, bar: Bar) -> Record:
    step = context.steps[index]
    assert isinstance(step, Calibrate)
    quantizer = _quantizer(context, index)
    loader: Any = context.accelerator.prepare_data_loader(
        DataLoader(context.train_set, step.batch_size, collate_fn=collated(context.task))
        if quantizer is not None
        else _shuffled(context, index, step.batch_size)
    )
    total = min(step.batches, len(loader))

    def batches() -> Iterator[Tensor]:
        for number, (images, _) in enumerate(read(loader)):
            if number == total:
                return
            yield images
            bar.update(number + 1, total)

    if quantizer is not None:
        quantizer.calibrate(model, batches())
    else:
        measure_statistics(model, batches(), context.accelerator)
    return Record(measure(context, index, model))


def _shuffled(context: Context, index: int, batch_size: int) -> DataLoader[Any]:
    """Full batches of all classes: statistics are means over what each batch alone shows."""
    set_seed(context.seed(index))
    return DataLoader(
        context.train_set,
        batch_size,
        shuffle=True,
        drop_last=len(context.train_set) >= batch_size,
        generator=torch.Generator().manual_seed(context.seed(index)),
        collate_fn=collated(context.task),
    )


def _freeze(context: Context, index: int, model: nn.Module, _bar: Bar) -> Record:
    quantizer = _quantizer(context, index)
    assert quantizer is not None
    quantizer.freeze(model)
    return Record(row=None)


def _quantizer(context: Context, index: int) -> Quantizer | None:
    """The quantizer that has prepared the model of a step, if one has."""
    before = (i for i in range(index) if isinstance(context.steps[i], Quantize))
    return next((context.technique(i) for i in before), None)


def _fuse(context: Context, index: int, model: nn.Module, _bar: Bar) -> Record:
    fused = context.technique(index).fuse(model.cpu(), context.example_inputs)
    return Record(measure(context, index, fused.to(context.accelerator.device)))


def _evaluate(context: Context, index: int, model: nn.Module, _bar: Bar) -> Record:
    return Record(measure(context, index, model))


def _deploy(context: Context, index: int, model: nn.Module, bar: Bar) -> Record:
    return deploy(context, index, model, bar)


_ACTIONS: dict[type[Any], Callable[[Context, int, nn.Module, Bar], Record]] = {
    Train: _train,
    Prune: _prune,
    Quantize: _quantize,
    Calibrate: _calibrate,
    Freeze: _freeze,
    Fuse: _fuse,
    Evaluate: _evaluate,
    Deploy: _deploy,
}
