"""How much of the task's main figure each prunable layer costs when it alone loses channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from micronet import registry
from micronet.errors import DataError, NothingPrunedError, OptionError, PruningError
from micronet.pipeline.context import Context, open_run
from micronet.recipe import Evaluate, Prune, Train
from micronet.storage.files import replacing
from micronet.techniques import Figure
from micronet.training.evaluation import measured


@attrs.frozen
class Sensitivity:
    """What the main figure is after pruning one layer, or some that share their channels.

    Args:
        layers: Their names.
        values: For each fraction of their channels, the figure on the test set without it.
    """

    layers: tuple[str, ...]
    values: dict[float, float]


@attrs.frozen
class Sensitivities:
    """Of a run's float model.

    Args:
        step: The step that left the model.
        figure: What is measured on the test set: the main figure of the run's task.
        value: Of the whole model.
        groups: In the order of the forward pass.
    """

    step: str
    figure: Figure
    value: float
    groups: Sequence[Sensitivity]


def sensitivities(
    run: Path | str,
    pruner: str,
    fractions: Sequence[float],
    *,
    cpu: bool = False,
    model: str | None = None,
    data: str | None = None,
    task: str | None = None,
) -> Sensitivities:
    """Prunes each layer of a run's last float model alone.

    Args:
        run: The run's folder.
        pruner: A pruner with the options `percent` and `keep`.
        fractions: What to remove from each layer, above 0 and at most 0.95.
        cpu: Stay on the CPU where there is a GPU.
        model: As `micronet.pipeline.context.open_run` takes it.
        data: The same.
        task: The same.

    Raises:
        DataError: There is no run, or no float model in it.
        OptionError: A fraction is not allowed, or the pruner has no such options.
        PruningError: No layer can be pruned.
    """
    context = open_run(run, cpu=cpu, model=model, data=data, task=task)
    index = last_float(context)
    unpruned = context.model_after(index).cpu()
    before = value(context, context.model_after(index))
    whole = _pruner(pruner, fractions[0])
    groups = whole.groups(unpruned, context.example_inputs)
    if not groups:
        raise PruningError(f"The pruner {pruner} can prune no layer of {run}.")
    found = []
    for layers in groups:
        others = tuple(literal(name) for group in groups if group != layers for name in group)
        values = {}
        for fraction in fractions:
            alone = _pruner(pruner, fraction, others)
            try:
                pruned = alone.prune(unpruned, context.example_inputs).model
            except NothingPrunedError:  # so small a fraction of so few channels
                values[fraction] = before
            else:
                values[fraction] = value(context, pruned)
        found.append(Sensitivity(layers, values))
    return Sensitivities(context.name(index), context.task.figures[0], before, found)


def plot(found: Sensitivities, file: Path | str) -> None:
    """Draws the figure over the removed fraction, a line for each layer, into a PNG.

    Raises:
        DataError: matplotlib is not installed.
    """
    figure = drawing()(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for group in found.groups:
        points = [(0.0, found.value), *sorted(group.values.items())]
        axes.plot(*zip(*points, strict=True), marker="o", label=", ".join(group.layers))
    axes.set(
        xlabel="fraction of the layer's channels removed",
        ylabel=found.figure.name.replace("_", " "),
    )
    figure.legend(loc="outside right upper", fontsize="small")
    with replacing(file) as temporary:  # `file` may be a link out of the run
        figure.savefig(temporary, format="png")


def drawing() -> Any:
    """The Figure of matplotlib.

    Raises:
        DataError: It is not installed.
    """
    try:
        from matplotlib.figure import Figure as Drawing
    except ImportError as error:
        raise DataError(
            "Plots need matplotlib: pip install 'micronet[plots]'. The table needs nothing."
        ) from error
    return Drawing


def last_float(context: Context) -> int:
    """A run's last finished step that leaves a float model."""
    changing = (
        position
        for position, step in enumerate(context.steps)
        if not isinstance(step, (Train, Prune, Evaluate))
    )
    finished = context.first + len(context.folder.records(context.names())) - 1
    index = min(finished, next(changing, len(context.steps)) - 1)
    if index < context.first:
        raise DataError(f"{context.folder.path} has no finished step with a float model yet.")
    return index


def _pruner(name: str, percent: float, keep: tuple[str, ...] = ()) -> Any:
    try:
        return registry.create("pruner", name, percent=percent, keep=keep)
    except OptionError as error:
        raise OptionError(f"pruner {name!r}: {error}", error.option) from error


def literal(name: str) -> str:
    """A layer's name as a pattern that matches it alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def value(context: Context, model: nn.Module) -> float:
    placed = model.to(context.accelerator.device)
    metric = measured(placed, context.test_set, task=context.task, accelerator=context.accelerator)
    return metric.compute()[context.task.figures[0].name]
