"""From a recipe's names to working techniques; what can be refused is refused here, before work."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from packaging.requirements import InvalidRequirement, Requirement

from micronet import registry
from micronet.errors import (
    OptionError,
    PluginError,
    RecipeError,
    blaming,
    nearest,
)
from micronet.options import build
from micronet.recipe import (
    Deploy,
    Named,
    Quantize,
    Recipe,
    Step,
    technique_field,
    technique_of,
)
from micronet.recipe.file import Key, Source
from micronet.recipe.step_order import fault_in_order
from micronet.techniques import DeployBackend, Quantizer, Scheme

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
        techniques: For each step, the instance of its technique, if it names one.
        weights: The file to start from.
        code: The user's own files that the model and the data come from, by the recipe's name
            for them.
        remarks: Sentences about what works, but not as well as it could.
    """

    recipe: Recipe
    build_model: Callable[[], nn.Module]
    load_data: Callable[[], tuple[TorchDataset[Any], TorchDataset[Any]]]
    techniques: tuple[Any, ...]
    weights: Path | None
    code: Mapping[str, Path] = attrs.field(factory=dict)
    remarks: tuple[str, ...] = ()


def resolve(
    recipe: Recipe, source: Source | None = None, *, here: bool = True, imports: bool = True
) -> Resolved:
    """Looks up everything that a recipe names.

    Args:
        recipe: From a file or from Python.
        source: Where it was written, for the messages.
        here: Whether its engines must be able to run on this machine. If not, a remark tells of
            those that can't.
        imports: Whether the user's own callables are imported. If not, they stay names, and using
            them is refused: so is read what a file says that another may have written.

    Raises:
        RecipeError: A technique, an option, a file, a callable or a distribution is missing or
            not allowed, the steps are in an order that makes no sense, or an engine can't run
            what the recipe quantizes to.
    """
    place = source or _Nowhere()
    if not recipe.steps:
        raise place.error(("steps",), "steps must hold at least one step.")
    _check_requirements(recipe, place)
    weights = None
    if recipe.weights is not None:
        weights = (source.folder if source else Path()) / Path(recipe.weights).expanduser()
        if not weights.is_file():
            raise place.error(("weights",), f"there is no file {str(weights)!r}.")
    techniques = tuple(_technique(index, step, place) for index, step in enumerate(recipe.steps))
    fault = fault_in_order(recipe.steps, techniques)
    if fault is not None:
        raise place.error(*fault)
    remarks = _check_engines(recipe, techniques, place, here=here)
    model, build_model = _source_of("model", recipe.model, "build", place, imports=imports)
    data, load_data = _source_of("dataset", recipe.data, "load", place, imports=imports)
    written_out = attrs.evolve(
        recipe,
        model=_written_out(recipe.model, model),
        data=_written_out(recipe.data, data),
        steps=[
            step if technique is None else _with_options(step, technique)
            for step, technique in zip(recipe.steps, techniques, strict=True)
        ],
    )
    code = {
        named.name: file
        for named, made_by in ((recipe.model, build_model), (recipe.data, load_data))
        if (file := made_by.file) is not None
    }
    return Resolved(written_out, build_model, load_data, techniques, weights, code, remarks)


def resolve_structure(recipe: Recipe, *, imports: bool) -> Resolved:
    """The same for what decides a model's structure; the data is left alone, and so is the order.

    Args:
        recipe: From a file.
        imports: As `resolve` takes it.

    Raises:
        RecipeError: As `resolve`.
    """
    place = _Nowhere()
    techniques = tuple(_technique(index, step, place) for index, step in enumerate(recipe.steps))
    _, build_model = _source_of("model", recipe.model, "build", place, imports=imports)
    return Resolved(recipe, build_model, _no_data, techniques, weights=None)


def resolve_data(data: Named, *, imports: bool = True) -> Callable[[], Any]:
    """What loads a data set; raises RecipeError as `resolve`."""
    _, load = _source_of("dataset", data, "load", _Command(), imports=imports)
    return load


def resolve_deployment(recipe: Recipe, step: Deploy) -> tuple[DeployBackend, tuple[str, ...]]:
    """The backend of a deploy step behind another recipe's steps, and remarks as in `Resolved`.

    Raises:
        RecipeError: It is unknown, can't run here, or can't run what the recipe's quantizer makes.
    """
    quantize = [each for each in recipe.steps if isinstance(each, Quantize)]
    whole = attrs.evolve(recipe, steps=[*quantize, step])
    techniques = tuple(_technique(i, each, _Command()) for i, each in enumerate(whole.steps))
    backend = techniques[-1]
    assert isinstance(backend, DeployBackend)
    return backend, _check_engines(whole, techniques, _Command(), here=True)


def _no_data() -> Any:
    raise RecipeError("This recipe tells a model's structure; it has no data.")


class _Nowhere:
    """Stands for the source of a recipe that was made in Python."""

    def error(self, key: Key, message: str) -> RecipeError:
        return RecipeError(f"{'.'.join(map(str, key)) or 'recipe'}: {message}")


class _Command(_Nowhere):
    """Stands for a command's options, which the message names itself."""

    def error(self, _key: Key, message: str) -> RecipeError:
        return RecipeError(message)


_Place = Source | _Nowhere


def _technique(index: int, step: Step, place: _Place) -> Any:
    named, field = technique_of(step), technique_field(type(step))
    if named is None or field is None:
        return None
    key: Key = ("steps", index, step.key)
    name_field, kind = field
    return _create(kind, named, key, (*key, name_field), place)


def _create(kind: str, named: Named, key: Key, name_key: Key, place: _Place) -> Any:
    try:
        return build(registry.get(kind, named.name), named.options, owner=f"{kind} {named.name!r}")
    except OptionError as error:
        raise place.error((*key, error.option or ""), str(error)) from error
    except PluginError as error:
        raise place.error(name_key, str(error)) from error


def _source_of(
    kind: str, named: Named, method: str, place: _Place, *, imports: bool
) -> tuple[Any, _Source | _NotImported]:
    """A registered model or data set, or the user's own callable."""
    role = "data" if kind == "dataset" else "model"
    key: Key = (role,)
    module_name, colon, attribute = named.name.partition(":")
    if not colon or _is_distribution(kind, named.name):
        technique = _create(kind, named, key, key, place)
        return technique, _Source(named.name, getattr(technique, method))
    if not imports:
        return None, _NotImported(named.name, role)
    function = _import(module_name, attribute, key, place)
    try:
        inspect.signature(function).bind(**named.options)
    except TypeError as error:
        raise place.error(key, f"{named.name} can't be called like this: {error}.") from error
    except ValueError:  # a callable in C may not tell its signature
        pass
    file = sys.modules[module_name].__file__
    return None, _Source(
        named.name, partial(function, **named.options), None if file is None else Path(file)
    )


@attrs.frozen
class _Source:
    """What makes the model or gives the data; whatever it raises is told as its fault.

    Args:
        name: As the recipe has it.
        function: A technique's method, or the user's own callable with its options.
        file: Where the user's own module lies.
    """

    name: str
    function: Callable[[], Any]
    file: Path | None = None

    def __call__(self) -> Any:
        with blaming(f"{self.name} fails"):
            return self.function()


@attrs.frozen
class _NotImported:
    """Stands for a callable of the user's that only a file names."""

    name: str
    role: str

    def __call__(self) -> Any:
        raise RecipeError(
            f"The {self.role} {self.name!r} is code of its author's, which a file can name but not "
            f"run. Name it yourself, as in --{self.role} {self.name}, if you trust it."
        )


def _is_distribution(kind: str, name: str) -> bool:
    distribution, _, bare = name.rpartition(":")
    entries = registry.list(kind)
    return any(entry.distribution == distribution and entry.name == bare for entry in entries)


def _import(module_name: str, attribute: str, key: Key, place: _Place) -> Callable[..., Any]:
    """A user's own callable; its module is looked for as Python does, then in the current folder.

    Last, so that a file there takes the place of no installed module.
    """
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise place.error(
            key,
            f"there is no module {error.name!r} on the path; {module_name}:{attribute} needs it.",
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's module may raise anything
        raise place.error(
            key, f"importing {module_name} fails: {type(error).__name__}: {error}."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [name for name in vars(module) if callable(getattr(module, name))]
        raise place.error(
            key, f"{module_name} has no callable {attribute!r}.{nearest(attribute, known)}"
        )
    checked: Callable[..., Any] = function
    return checked


def _check_requirements(recipe: Recipe, place: _Place) -> None:
    from importlib.metadata import PackageNotFoundError, version

    for index, line in enumerate(recipe.requires):
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise place.error(
                ("requires", index), f"{line!r} is no requirement such as 'name>=1.0'."
            ) from error
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = None
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            raise place.error(
                ("requires", index),
                f"needs {requirement}, installed: {found or 'not at all'}; "
                f"pip install '{requirement}'.",
            )


def _check_engines(
    recipe: Recipe, techniques: tuple[Any, ...], place: _Place, *, here: bool
) -> tuple[str, ...]:
    """Refuses a scheme that an engine can't run, and an engine that can't run here.

    A recipe that no machine can run is told so on machines without the engine too.

    Returns:
        Remarks on a scheme that an engine runs slowly, and on an engine that need not run here.
    """
    scheme, remarks = None, []
    for index, (step, technique) in enumerate(zip(recipe.steps, techniques, strict=True)):
        if isinstance(technique, Quantizer):
            scheme = technique.scheme
        if not isinstance(step, Deploy):
            continue
        assert isinstance(technique, DeployBackend)
        lacking, faults = technique.available(), []
        if scheme is not None and (reason := technique.unsuitable(scheme)):
            faults.append(reason)
        elif scheme is not None and not technique.is_fast(scheme):
            assert technique.fast is not None
            remarks.append(
                f"{step.backend} is fast with {_in_words(technique.fast)}; this recipe quantizes "
                f"to {_in_words(scheme)}."
            )
        if lacking is not None:
            told = f"{step.backend} can't run here: {lacking}."
            (faults if here or faults else remarks).append(told)
        if faults:
            raise place.error(("steps", index, step.key, "backend"), " ".join(faults))
    return tuple(remarks)


def _in_words(scheme: Scheme) -> str:
    kinds = {True: "symmetric", False: "asymmetric"}
    return (
        f"{kinds[scheme.w_symmetric]} {scheme.w_bits:g}-bit weights per "
        f"{'channel' if scheme.per_channel else 'layer'} and {kinds[scheme.a_symmetric]} "
        f"{scheme.a_bits:g}-bit activations"
    )


def _with_options(step: Any, technique: Any) -> Step:
    """A step with every option of its technique written out."""
    written_out: Step = attrs.evolve(step, options=_options_of(technique))
    return written_out


def _options_of(technique: Any) -> Mapping[str, Any]:
    return attrs.asdict(technique, recurse=False)


def _written_out(named: Named, technique: Any) -> Named:
    return named if technique is None else Named(named.name, _options_of(technique))
