"""What a run refuses at its start, looked at without a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import torch

from micronet.errors import DataError, MicronetError
from micronet.pipeline.context import start_model
from micronet.pipeline.data import Sets, check_model, checked_sets, highest_label
from micronet.pipeline.trial import faults_of_model
from micronet.recipe.faults import Faults
from micronet.recipe.file import Source
from micronet.recipe.own_code import OwnCallable
from micronet.recipe.resolution import Resolved, too_few_classes
from micronet.storage.pruned import restored
from micronet.techniques import Contents


def look(resolved: Resolved, source: Source) -> None:
    """Builds the user's own model, fills it with the weights, and looks at the user's own data.

    Registered data sets are not loaded, since that may take a download; what they tell of
    themselves is compared with the model. Nor are models built that bring weights of their own.

    Raises:
        RecipeError: These can't be made, or do not fit each other; every reason is told.
    """
    faults, recipe, contents = Faults(), resolved.recipe, resolved.contents
    sets, model = None, None
    with _told(source, "data", faults):
        if isinstance(resolved.load_data, OwnCallable):
            sets = checked_sets(resolved.load_data(), recipe.data.name)
    with _told(source, "model", faults):
        if resolved.weights is not None or recipe.model.options.get("weights") is None:
            model = start_model(attrs.evolve(resolved, weights=None))
    with _told(source, "weights", faults):
        if resolved.weights is not None and model is not None:
            model = restored(model, resolved.weights)
    images = None
    with _told(source, "model", faults):
        if sets is not None:
            images = torch.stack([sets[0][index][0] for index in (0, 1)])
        elif contents is not None:
            images = torch.zeros(2, *contents.shape)
        if model is not None and images is not None:
            classes = check_model(model, recipe.model.name, (images,))
            with _told(source, "data", faults):
                _check_labels(sets, contents, classes)
    faults.check()
    if model is not None:
        for key, fault in faults_of_model(resolved, images):
            faults.add(source.error(key, fault))
    faults.check()


def _check_labels(sets: Sets | None, contents: Contents | None, classes: int) -> None:
    highest = [highest_label(data) for data in sets or ()]
    if contents is not None:
        highest.append(contents.classes - 1)
    if max(highest) >= classes:
        raise DataError(too_few_classes(max(highest), classes))


@contextmanager
def _told(source: Source, key: str, faults: Faults) -> Iterator[None]:
    """Ends the block at an error, which becomes a fault at the line of a key."""
    try:
        yield
    except MicronetError as error:
        faults.add(source.error((key,), str(error)), error)
