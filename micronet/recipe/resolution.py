"""From a recipe's names to working techniques; what can be refused is refused here, before work."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from micronet.distribution import NAME, own_version
from micronet.errors import OptionError, PluginError, RecipeError
from micronet.recipe import (
    CLASSIFICATION,
    Deploy,
    Named,
    Quantize,
    Recipe,
    Step,
    Train,
    technique_field,
    technique_of,
)
from micronet.recipe.draft import Draft, DraftStep
from micronet.recipe.engines import check_engines
from micronet.recipe.faults import Faults
from micronet.recipe.file import Source, opened, sketch
from micronet.recipe.own_code import OwnCallable, own_module
from micronet.recipe.paths import path_of, shown, why_no_file
from micronet.recipe.place import Command, Nowhere, Place
from micronet.recipe.plain_yaml import Key
from micronet.recipe.sources import (
    DATA,
    ROLES,
    TASK,
    contents_of,
    create,
    own_callable,
    own_file,
    source_of,
    task_of,
)
from micronet.recipe.step_order import faults_in_order, work_on_batch_norms
from micronet.techniques import ByLayer, Contents, DeployBackend, Quantizer, Task

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset as TorchDataset


@attrs.frozen
class Resolved:
    """A recipe whose every name has been looked up.

    Args:
        recipe: The recipe, with every option of every technique written out.
        build_model: Makes the model with fresh weights.
        load_data: Gives (training set, test set).
        task: What the model's outputs mean; `Unnamed` where only a file names it.
        techniques: For each step, the instance of its technique, if it names one.
        weights: The file to start from.
        callables: The user's own losses and teachers of steps, by the step's index and the option.
        code: The user's own files that model, data, task and these come from, by the recipe's name
            for them.
        remarks: Sentences about what works, but not as well as it could.
        contents: What its data set holds, where that is known without loading it.
        asks_for_batch_norms: Whether steps work on batch norms that a registered model may lack.
    """

    recipe: Recipe
    build_model: Callable[[], nn.Module]
    load_data: Callable[[], tuple[TorchDataset[Any], TorchDataset[Any]]]
    task: Any
    techniques: tuple[Any, ...]
    weights: Path | None
    callables: Mapping[tuple[int, str], OwnCallable] = attrs.field(factory=dict)
    code: Mapping[str, Path] = attrs.field(factory=dict)
    remarks: tuple[str, ...] = ()
    contents: Contents | None = None
    asks_for_batch_norms: bool = False

    @property
    def starts_at_random(self) -> bool:
        """Whether a registered model starts with fresh weights; others may bring their own."""
        given = self.weights or self.recipe.model.options.get("weights")
        return given is None and ":" not in self.recipe.model.name

    @property
    def needs_a_look(self) -> bool:
        """Whether only its model, data or weights, once made or read, can tell that they fit."""
        own = isinstance(self.build_model, OwnCallable) or isinstance(self.load_data, OwnCallable)
        return own or self.weights is not None or self.asks_for_batch_norms


def resolve(
    recipe: Recipe,
    source: Source | None = None,
    *,
    here: bool = True,
    trusted: Collection[str] = ROLES,
    structure_only: bool = False,
) -> Resolved:
    """Looks up everything that a recipe names.

    Args:
        recipe: From a file or from Python.
        source: Where it was written, for the messages.
        here: Whether its engines must be able to run on this machine. If not, a remark tells of
            those that can't.
        trusted: Which of "model", "data" and "task" are the user's choice. Of the others, own
            callables and data from a place stay names, and using them is refused: so is read what
            a file says that another may have written. Losses and teachers of steps are left alone
            unless all three are.
        structure_only: Whether all of the model's weights are replaced. A registered one then
            fetches none.

    Raises:
        RecipeError: A technique, an option, a file, a callable or a distribution is missing or
            not allowed, the steps are in an order that makes no sense, or an engine can't run
            what the recipe quantizes to.
    """
    place = source or Nowhere()
    if not recipe.steps:
        raise place.error(("steps",), "steps must hold at least one step.")
    return _resolved(
        Draft.of(recipe), place, Faults(), here=here, trusted=trusted, structure_only=structure_only
    )


def resolve_file(
    name: str, changes: Sequence[str] = (), *, here: bool = True
) -> tuple[Resolved, Source]:
    """Reads a recipe and looks up what it names; what is wrong with either is told at once.

    Args:
        name: As in `read`.
        changes: As in `read`.
        here: As in `resolve`.

    Raises:
        RecipeError: As `read` and `resolve`; of several faults each stands in a line.
    """
    source, faults = opened(name, changes), Faults()
    return _resolved(sketch(source, faults), source, faults, here=here, labels=True), source


def _resolved(
    draft: Draft,
    place: Place,
    faults: Faults,
    *,
    here: bool,
    labels: bool = False,
    trusted: Collection[str] = ROLES,
    structure_only: bool = False,
) -> Resolved:
    """As `resolve`; `labels` says whether those of the data must be among the model's classes."""
    all_there = _check_requirements(draft.requires, place, faults)
    weights = _weights(draft.weights, place, faults)
    techniques = tuple(_technique(i, step, place, faults) for i, step in enumerate(draft.steps))
    for key, fault in faults_in_order(draft.steps, techniques):
        faults.add(place.error(key, fault))
    own_model = own_module("model", draft.model) is not None
    remarks = check_engines(draft.steps, techniques, place, faults, here=here, own_model=own_model)
    method = "structure" if structure_only else "build"
    model, build_model = source_of("model", draft.model, method, place, faults, trusted)
    data, load_data = source_of("dataset", draft.data, "load", place, faults, trusted)
    task = task_of(draft.task, place, faults, trusted)
    own_recipe = {*ROLES} <= {*trusted} and not structure_only
    callables = _callables(draft.steps, place, faults) if own_recipe else {}
    contents = contents_of(data, place, faults)
    classes = getattr(model, "num_classes", None)
    counted = draft.task is not None and draft.task.name == CLASSIFICATION
    if labels and counted and contents and isinstance(classes, int) and contents.classes > classes:
        faults.add(place.error(("data",), too_few_classes(contents.classes - 1, classes)))
    if not all_there:  # what a missing distribution brings is missing for that reason
        faults.forget(PluginError)
    faults.check()
    recipe = draft.recipe()
    written_out = attrs.evolve(
        recipe,
        model=_written_out(recipe.model, model),
        data=_written_out(recipe.data, data),
        task=_written_out(recipe.task, task if isinstance(task, Task) else None),
        steps=[
            step if technique is None else _with_options(step, technique)
            for step, technique in zip(recipe.steps, techniques, strict=True)
        ],
    )
    code = {
        own.name: own.file
        for own in (build_model, load_data, *callables.values())
        if isinstance(own, OwnCallable) and own.file is not None
    } | own_file(recipe.task, task)
    asks = work_on_batch_norms(recipe.steps) and not getattr(model, "has_batch_norms", None)
    return Resolved(
        written_out,
        build_model,
        load_data,
        task,
        techniques,
        weights,
        callables,
        code,
        remarks,
        contents,
        asks,
    )


def resolve_structure(recipe: Recipe, *, trusted: Collection[str] = ()) -> Resolved:
    """The same for what decides a model's structure; the data is left alone, and so is the order.

    Args:
        recipe: From a file.
        trusted: As `resolve` takes it.

    Raises:
        RecipeError: As `resolve`.
    """
    place, faults = Nowhere(), Faults()
    techniques = tuple(_technique(i, step, place, faults) for i, step in enumerate(recipe.steps))
    _, build_model = source_of("model", recipe.model, "structure", place, faults, trusted)
    task = task_of(recipe.task, place, faults, trusted)
    faults.check()
    return Resolved(recipe, build_model, _no_data, task, techniques, weights=None)


def resolve_data(data: Named, *, trusted: Collection[str] = (DATA,)) -> Callable[[], Any]:
    """What loads a data set; takes `trusted` and raises RecipeError as `resolve`."""
    faults = Faults()
    _, load = source_of("dataset", data, "load", Command(), faults, trusted)
    faults.check()
    return load


def known_contents(data: Named) -> Contents | None:
    """What a registered data set holds, without loading it; `None` for the user's own.

    Raises:
        RecipeError: As `resolve`.
    """
    if own_module("dataset", data) is not None:
        return None
    faults = Faults()
    technique = create("dataset", data, (DATA,), (DATA,), Command(), faults)
    faults.check()
    return contents_of(technique, Command(), faults)


def resolve_task(task: Named, *, trusted: Collection[str] = (TASK,)) -> Any:
    """A task, or `Unnamed`; takes `trusted` and raises RecipeError as `resolve`."""
    faults = Faults()
    found = task_of(task, Command(), faults, trusted)
    faults.check()
    return found


def resolve_deployment(recipe: Recipe, step: Deploy) -> tuple[DeployBackend, tuple[str, ...]]:
    """The backend of a deploy step behind another recipe's steps, and remarks as in `Resolved`.

    Raises:
        RecipeError: It is unknown, can't run here, or can't run what the recipe's quantizer makes.
    """
    quantize = [each for each in recipe.steps if isinstance(each, Quantize)]
    whole = attrs.evolve(recipe, steps=[*quantize, step])
    place, faults = Command(), Faults()
    techniques = tuple(_technique(i, each, place, faults) for i, each in enumerate(whole.steps))
    own_model = own_module("model", recipe.model) is not None
    remarks = check_engines(whole.steps, techniques, place, faults, here=True, own_model=own_model)
    faults.check()
    backend = techniques[-1]
    assert isinstance(backend, DeployBackend)
    return backend, remarks


def _no_data() -> Any:
    raise RecipeError("This recipe tells a model's structure; it has no data.")


def _technique(index: int, step: DraftStep, place: Place, faults: Faults) -> Any:
    if step is None or isinstance(step, type):
        return None
    named, field = technique_of(step), technique_field(type(step))
    if named is None or field is None:
        return None
    key: Key = ("steps", index, step.key)
    name_field, kind = field
    technique = create(kind, named, key, (*key, name_field), place, faults)
    if isinstance(step, Quantize) and step.layers and technique is not None:
        return _by_layer(technique, step.layers, (*key, "layers"), place, faults)
    return technique


def _by_layer(
    quantizer: Quantizer, choices: Mapping[str, Any], key: Key, place: Place, faults: Faults
) -> Quantizer:
    try:
        return ByLayer(quantizer, choices)
    except OptionError as error:
        faults.add(place.error(key, str(error)), error)
        return quantizer


def _callables(
    steps: Sequence[DraftStep], place: Place, faults: Faults
) -> dict[tuple[int, str], OwnCallable]:
    """The user's own losses and teachers."""
    found = {}
    for index, step in enumerate(steps):
        for option in ("loss", "teacher") if isinstance(step, Train) else ():
            name = getattr(step, option)
            if name is None or (option == "teacher" and ":" not in name):
                continue
            own = own_callable(name, ("steps", index, Train.key, option), place, faults)
            if own is not None:
                found[index, option] = own
    return found


def too_few_classes(label: int, classes: int) -> str:
    """The sentence for data with more classes than the model."""
    return f"A label is {label}, and the model has {classes} classes: 0 to {classes - 1}."


def _check_requirements(requires: Sequence[str], place: Place, faults: Faults) -> bool:
    """Whether every distribution that a recipe requires is installed, in whatever version."""
    all_there = True
    for index, line in enumerate(requires):
        key: Key = ("requires", index)
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            faults.add(place.error(key, f"{line!r} is no requirement such as 'name>=1.0'."), error)
            continue
        try:
            own = canonicalize_name(requirement.name) == NAME
            found = own_version() if own else version(requirement.name)
        except PackageNotFoundError:
            found, all_there = None, False
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            told = (
                f"needs {requirement}, installed: {found or 'not at all'}; "
                f"pip install '{requirement}'."
            )
            faults.add(place.error(key, told))
    return all_there


def _weights(named: str | None, place: Place, faults: Faults) -> Path | None:
    """The file that a recipe's weights are in."""
    if named is None:
        return None
    path = path_of(named, place.folder)
    reason = why_no_file(path)
    if reason is not None:
        why = "" if reason == os.strerror(errno.ENOENT) else f": {reason}"
        faults.add(place.error(("weights",), f"there is no file {shown(path)!r}{why}."))
    return path


def _with_options(step: Any, technique: Any) -> Step:
    """A step with every option of its technique written out."""
    written_out: Step = attrs.evolve(step, options=_options_of(technique))
    return written_out


def _options_of(technique: Any) -> Mapping[str, Any]:
    return attrs.asdict(getattr(technique, "base", technique), recurse=False)


def _written_out(named: Named, technique: Any) -> Named:
    known = technique is not None and attrs.has(type(technique))
    return named if not known else Named(named.name, _options_of(technique))
