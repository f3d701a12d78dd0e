"""Code of the user's own that a recipe names: module:callable."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from micronet import registry
from micronet.errors import RecipeError, blaming, nearest
from micronet.recipe import Named
from micronet.recipe.place import Place
from micronet.recipe.plain_yaml import Key


@attrs.frozen
class Made:
    """What makes the model or gives the data; whatever it raises is told as its fault.

    Args:
        name: As the recipe has it.
        function: A technique's method, or the user's own callable with its options.
    """

    name: str
    function: Callable[[], Any]

    def __call__(self) -> Any:
        with blaming(f"{self.name} fails"):
            return self.function()


@attrs.frozen
class OwnCallable(Made):
    """The user's own.

    Args:
        module: Where it is.
    """

    module: str

    @property
    def file(self) -> Path | None:
        """Where its module lies."""
        file = sys.modules[self.module].__file__
        return None if file is None else Path(file)


@attrs.frozen
class Unnamed:
    """Stands for what a file alone names, and what nobody may use before the user names it too.

    That is code of its author's, and data whose options say where to look for it.
    """

    named: Named
    role: str

    def __call__(self) -> Any:
        refuse_unnamed("A file", self)

    def __str__(self) -> str:
        texts = [f"{key}: {value!r}" for key, value in self.named.options.items() if _text(value)]
        options = f" with {', '.join(texts)}" if texts else ""
        return f"the {self.role} {self.named.name!r}{options}"


def refuse_unnamed(origin: str, *sources: Any) -> None:
    """Refuses what only a file names.

    Args:
        origin: The file, and why it is not believed, as the beginning of a sentence.
        sources: What makes a model or gives data.

    Raises:
        RecipeError: One of them is `Unnamed`; it says which options name it.
    """
    unnamed = [source for source in sources if isinstance(source, Unnamed)]
    if unnamed:
        options = " ".join(f"--{each.role} {each.named.name}" for each in unnamed)
        raise RecipeError(
            f"{origin} asks for {' and '.join(map(str, unnamed))}, which it can't choose for you. "
            f"If you trust it, name it yourself: {options}."
        )


def only_a_file_may_not(kind: str, named: Named) -> bool:
    """Whether the user must name a model or data set himself: own code, or data from a place."""
    return own_module(kind, named) is not None or (kind == "dataset" and _text(named.options))


def _text(value: Any) -> bool:
    """Whether there is a text in an option's value; numbers tell no place."""
    if isinstance(value, Mapping):
        return any(map(_text, value.values()))
    return isinstance(value, str) or (isinstance(value, (list, tuple)) and any(map(_text, value)))


def own_module(kind: str, named: Named | None) -> str | None:
    """The module of the user's own callable, `None` for what is registered."""
    distribution, colon, bare = named.name.partition(":") if named else ("", "", "")
    entries = registry.list(kind) if colon else []
    registered = any(each.distribution == distribution and each.name == bare for each in entries)
    return None if registered or not colon else distribution


def import_callable(module_name: str, attribute: str, key: Key, place: Place) -> Callable[..., Any]:
    """A user's own callable; its module is looked for as Python does, then in the current folder.

    Last, so that a file there takes the place of no installed module.
    """
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise place.error(
            key, f"{module_name} is of Python's own library, which makes no models or data."
        )
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
