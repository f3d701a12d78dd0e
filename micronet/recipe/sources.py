"""What a recipe asks for beside the techniques of its steps: a model, data and a task.

Each is registered, or the user's own code.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from micronet import registry
from micronet.errors import OptionError, PluginError, RecipeError, describe_error
from micronet.options import build
from micronet.recipe import Named
from micronet.recipe.faults import Faults
from micronet.recipe.own_code import (
    Made,
    OwnCallable,
    Unnamed,
    import_callable,
    only_a_file_may_not,
    own_module,
)
from micronet.recipe.place import Place
from micronet.recipe.plain_yaml import Key
from micronet.techniques import Contents, Dataset, Task

MODEL, DATA, TASK = ROLES = "model", "data", "task"
"""What they are called in a recipe."""


def create(kind: str, named: Named, key: Key, name_key: Key, place: Place, faults: Faults) -> Any:
    """A technique, `None` if it can't be made."""
    owner = f"{kind} {named.name!r}"
    try:
        return build(registry.get(kind, named.name), named.options, owner=owner)
    except OptionError as error:
        for fault in (error, *error.others):
            faults.add(place.error((*key, fault.option or ""), str(fault)), error)
    except PluginError as error:
        faults.add(place.error(name_key, str(error)), error)
    except Exception as error:  # a plugin may raise anything
        faults.add(place.error(key, f"{owner} fails: {describe_error(error)}."), error)
    return None


def contents_of(data: Any, place: Place, faults: Faults) -> Contents | None:
    try:
        return data.contents if isinstance(data, Dataset) else None
    except Exception as error:  # a plugin may raise anything
        told = f"{type(data).__name__} can't tell its contents: {describe_error(error)}."
        faults.add(place.error(("data",), told), error)
        return None


def source_of(
    kind: str,
    named: Named | None,
    method: str,
    place: Place,
    faults: Faults,
    trusted: Collection[str],
) -> tuple[Any, Callable[[], Any]]:
    """A registered model or data set, or the user's own callable."""
    role = DATA if kind == "dataset" else MODEL
    key: Key = (role,)
    if named is None:
        return None, _nothing
    if role not in trusted and only_a_file_may_not(kind, named):
        return None, Unnamed(named, role)
    module_name = own_module(kind, named)
    if module_name is None:
        technique = create(kind, named, key, key, place, faults)
        return technique, Made(named.name, getattr(technique, method, _nothing))
    function = _imported(module_name, named, key, place, faults)
    if function is None:
        return None, _nothing
    try:
        inspect.signature(function).bind(**named.options)
    except TypeError as error:
        words = f"{named.name} can't be called like this: {error}."
        faults.add(place.error(key, words), error)
    except ValueError:  # a callable in C may not tell its signature
        pass
    return None, OwnCallable(named.name, partial(function, **named.options), module_name)


def own_callable(name: str, key: Key, place: Place, faults: Faults) -> OwnCallable | None:
    """The user's own callable that an option names, `None` where it is faulty."""
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        faults.add(place.error(key, f"{key[-1]} must be package.module:callable, got {name!r}."))
        return None
    function = _imported(module_name, Named(name), key, place, faults)
    return None if function is None else OwnCallable(name, function, module_name)


def task_of(named: Named | None, place: Place, faults: Faults, trusted: Collection[str]) -> Any:
    """A registered task, or an instance of the user's own class; `None` where it is faulty."""
    key: Key = (TASK,)
    if named is None:
        return None
    if TASK not in trusted and only_a_file_may_not("task", named):
        return Unnamed(named, TASK)
    module_name = own_module("task", named)
    if module_name is None:
        return create("task", named, key, key, place, faults)
    cls = _imported(module_name, named, key, place, faults)
    return None if cls is None else _own_task(cls, named, key, place, faults)


def _own_task(cls: Any, named: Named, key: Key, place: Place, faults: Faults) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, Task) and attrs.has(cls)):
        words = f"{named.name} must be an attrs class that derives from micronet.techniques.Task."
        faults.add(place.error(key, words))
        return None
    try:
        return build(cls, named.options, owner=f"task {named.name!r}")
    except OptionError as error:
        for fault in (error, *error.others):
            faults.add(place.error((*key, fault.option or ""), str(fault)), error)
    except Exception as error:  # the user's class may raise anything, or be abstract
        words = f"task {named.name!r} fails: {describe_error(error)}."
        faults.add(place.error(key, words), error)
    return None


def own_file(named: Named, task: Any) -> dict[str, Path]:
    """The file of the user's own task, by the recipe's name for it."""
    if own_module("task", named) is None or not isinstance(task, Task):
        return {}
    file = sys.modules[type(task).__module__].__file__
    return {} if file is None else {named.name: Path(file)}


def _imported(
    module_name: str, named: Named, key: Key, place: Place, faults: Faults
) -> Callable[..., Any] | None:
    """The user's own callable; a module that does not load is told once."""
    try:
        return import_callable(module_name, named.name.partition(":")[2], key, place)
    except RecipeError as error:
        if module_name in sys.modules or module_name not in faults.modules:
            faults.add(error, error.__cause__)
        faults.modules.add(module_name)
        return None


def _nothing() -> Any:
    """Stands for what a faulty recipe would build or load."""
