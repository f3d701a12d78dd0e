"""What a run refuses at its start, looked at without a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from micronet.errors import DataError, MicronetError
from micronet.pipeline.context import start_model
from micronet.pipeline.data import Sets, checked_sets, fitted_task, for_task, look_through
from micronet.pipeline.rehearsal import rehearse
from micronet.pipeline.trial import faults_of_model
from micronet.recipe import CLASSIFICATION
from micronet.recipe.faults import Faults
from micronet.recipe.file import Source
from micronet.recipe.own_code import OwnCallable
from micronet.recipe.resolution import Resolved
from micronet.storage.pruned import pruned_as_in
from micronet.storage.weights import load_weights
from micronet.streams import say
from micronet.techniques import Contents, Task
from micronet.training.accelerator import make_accelerator


def look(resolved: Resolved, source: Source) -> None:
    """Builds the user's own model, fills it with the weights, and looks at the user's own data.

    If all of them fit, every step is taken with two images.

    Registered data sets are not loaded, since that may take a download; what they tell of
    themselves is compared with the model. Nor are models built that bring weights of their own.

    Raises:
        RecipeError: These can't be made, or do not fit each other; every reason is told.
    """
    faults, recipe, contents = Faults(), resolved.recipe, resolved.contents
    sets, model = None, None
    with _told(source, "data", faults):
        if isinstance(resolved.load_data, OwnCallable):
            sets = checked_sets(resolved.load_data(), recipe.data.name, resolved.task)
    with _told(source, "model", faults):
        if resolved.weights is not None or recipe.model.options.get("weights") is None:
            model = start_model(attrs.evolve(resolved, weights=None))
    with _told(source, "weights", faults):
        if resolved.weights is not None and model is not None:
            model = pruned_as_in(model, resolved.weights)
            understood = load_weights(model, resolved.weights)
            if understood is not None:
                say(f"micronet: {understood}")
    counted = contents if recipe.task.name == CLASSIFICATION else None
    samples = _two_of(sets, counted)
    with _told(source, "model", faults):
        if model is not None and samples is not None:
            images = torch.stack([image for image, _ in samples])
            task = fitted_task(resolved.task, model, recipe.model.name, (images,))
            with _told(source, "data", faults):
                _check_targets(sets, counted, task, images[0], recipe.data.name)
    faults.check()
    if model is not None:
        _try_steps(resolved, resolved.task if samples is None else task, model, samples, source)


def _try_steps(
    resolved: Resolved,
    task: Task,
    model: nn.Module,
    samples: Sequence[tuple[Tensor, Any]] | None,
    source: Source,
) -> None:
    faults = Faults()
    for key, reason in faults_of_model(resolved, task, samples):
        faults.add(source.error(key, reason))
    faults.check()
    if samples is not None:
        fault = rehearse(resolved, task, model, samples, make_accelerator(cpu=True, quiet=True))
        if fault is not None:
            raise source.error(*fault)


def _two_of(sets: Sets | None, contents: Contents | None) -> Sequence[tuple[Tensor, Any]] | None:
    """Two training samples; of noise where the data are not loaded, `None` where none are known."""
    if sets is not None:
        return [sets[0][index] for index in (0, 1)]
    if contents is None:
        return None
    noise = torch.Generator().manual_seed(0)
    return [(torch.rand(*contents.shape, generator=noise), label) for label in (0, 1)]


def _check_targets(
    sets: Sets | None, counted: Contents | None, task: Task, image: Tensor, data: str
) -> None:
    for samples in for_task(sets, task) if sets else ():
        look_through(samples)
    if counted is None:
        return
    try:
        task.check_target(counted.classes - 1, image)
    except DataError as error:
        raise DataError(f"data {data} {error}.") from error


@contextmanager
def _told(source: Source, key: str, faults: Faults) -> Iterator[None]:
    """Ends the block at an error, which becomes a fault at the line of a key."""
    try:
        yield
    except MicronetError as error:
        faults.add(source.error((key,), str(error)), error)
