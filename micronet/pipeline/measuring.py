"""A step's row: what its model is and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from torch import nn

from micronet.measure import FLOAT_BITS, activation_bits, gflops, params_m, weight_bits
from micronet.pipeline.context import Context
from micronet.pipeline.packed import structure_after
from micronet.pipeline.results import Row
from micronet.pruning import PruningPlan
from micronet.quantization import is_ready
from micronet.recipe import Prune, Quantize, technique_of, to_plain
from micronet.storage.packing import save_packed
from micronet.storage.pruned import save_pruned
from micronet.storage.weights import save_state
from micronet.techniques import Metric
from micronet.training.evaluation import measured


def measure(
    context: Context, index: int, model: nn.Module, plans: Sequence[PruningPlan] | None = None
) -> Row:
    """Writes a step's weights and measures its model; every process must call it.

    Args:
        context: The run.
        index: The step.
        model: As the step leaves it.
        plans: What the model was pruned by, if the step is the last of these prunings.
    """
    name = context.name(index)
    bits = weight_bits(model)
    figures: Mapping[str, float] = {}
    notes = []
    if is_ready(model):
        metric = measured(
            model, context.test_set, task=context.task, accelerator=context.accelerator
        )
        figures, notes = metric.compute(), _notes(context, index, metric)
    size_mb = None
    if context.accelerator.is_main_process:
        file = context.folder.weights(name)
        _save(context, model, context.pruning(index) if plans is None else plans, file)
        if bits != FLOAT_BITS:
            file = context.folder.packed(name)
            save_packed(model, file, structure=structure_after(context, index))
        size_mb = file.stat().st_size / 1e6
    example_inputs = tuple(
        tensor.to(context.accelerator.device) for tensor in context.example_inputs
    )
    return compared(
        context,
        Row(
            step=name,
            type=type_after(context, index),
            w_bits=bits,
            a_bits=activation_bits(model),
            figures=figures,
            gflops=gflops(model, example_inputs),
            params_m=params_m(model),
            size_mb=size_mb,
            notes=notes,
        ),
    )


def _save(context: Context, model: nn.Module, plans: Sequence[PruningPlan], file: Path) -> None:
    """Writes a model's weights; with all that it takes to build it, if it is a pruned one."""
    if plans:
        recipe = attrs.evolve(context.resolved.recipe, steps=(), weights=None, requires=())
        save_pruned(model, plans, file, recipe=to_plain(recipe))
    else:
        save_state(model.state_dict(), file)


def _notes(context: Context, index: int, metric: Metric) -> list[str]:
    notes = []
    if index < 0 and context.resolved.starts_at_random:
        notes.append("the recipe gives this model no weights; they are random.")
    pruned_last = index >= 0 and isinstance(context.steps[index], Prune)
    return notes if pruned_last else notes + metric.notes()


def compared(context: Context, row: Row) -> Row:
    """A row with what follows from the float model's."""
    base = context.float_row()
    if base is None:
        return row
    compression = loss = None
    if base.size_mb and row.size_mb is not None:
        compression = 1 - row.size_mb / base.size_mb
    main = context.task.figures[0]
    if main.name in base.figures and main.name in row.figures:
        loss = main.loss(base.figures[main.name], row.figures[main.name])
    return attrs.evolve(row, compression=compression, loss=loss)


def type_after(context: Context, index: int) -> str:
    """What the model has become, as the table's Type: its name, or its pruner's and quantizer's."""
    done = [
        technique.name
        for step in context.steps[: index + 1]
        if isinstance(step, (Prune, Quantize)) and (technique := technique_of(step))
    ]
    return " + ".join(done) or context.resolved.recipe.model.name
