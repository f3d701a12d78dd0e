"""Reads recipes from YAML, and keeps the line of everything for the messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import attrs

from micronet.errors import OptionError, RecipeError, listed, nearest
from micronet.options import build, freeze, matches
from micronet.recipe import (
    CLASSIFICATION,
    STEPS,
    Named,
    Recipe,
    Step,
    own_fields,
    plain_yaml,
    technique_field,
)
from micronet.recipe.draft import Draft, DraftStep
from micronet.recipe.faults import Faults
from micronet.recipe.paths import shown, why_no_file
from micronet.recipe.plain_yaml import Key
from micronet.recipe.steps import fault_of_seed, to_plain

_TOP = ("model", "data", "task", "weights", "seed", "requires", "steps")


@attrs.frozen
class Source:
    """A recipe's plain content and where each part of it was written.

    Args:
        name: The file, or the shipped recipe, as the user named it.
        content: What YAML gave.
        lines: The line of each key.
        folder: Where its relative paths start.
        changes: What `--set` has replaced in it.
    """

    name: str
    content: Any
    lines: Mapping[Key, int]
    folder: Path
    changes: tuple[str, ...] = ()

    def error(self, key: Key, message: str) -> RecipeError:
        """An error that begins with file and line of the innermost part that has one."""
        ends = "".join(f" (with --set {change})" for change in self.changes)
        for length in range(len(key), -1, -1):
            line = self.lines.get(key[:length])
            if line is not None:
                return RecipeError(f"{self.name}:{line}: {message}{ends}", line)
        return RecipeError(f"{self.name}: {message}{ends}")


def shipped() -> dict[str, str]:
    """The recipes that come with micronet: name and first line of comment."""
    folder = resources.files("micronet.recipe") / "shipped"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            first = file.read_text("utf-8").splitlines()[0]
            found[file.name.removesuffix(".yaml")] = first.lstrip("# ")
    return found


def read(name: str, changes: Sequence[str] = ()) -> tuple[Recipe, Source]:
    """A recipe from a file or by its shipped name.

    Args:
        name: A path, or a name that `shipped` lists.
        changes: `"steps.0.train.epochs=3"`, each replacing one value.

    Raises:
        RecipeError: It can't be read, or something in it is unknown, missing or not allowed; the
            message begins with file and line. Techniques and their options are not looked at.
    """
    source = opened(name, changes)
    return structure(source), source


def opened(name: str, changes: Sequence[str] = ()) -> Source:
    """A recipe's plain content, with `changes` made; raises RecipeError where that can't be."""
    source = _open(name)
    for change in changes:
        source = _change(source, change)
    return source


def structure(source: Source) -> Recipe:
    """The recipe in a source; raises as `read`."""
    faults = Faults()
    draft = sketch(source, faults)
    faults.check()
    return draft.recipe()


def sketch(source: Source, faults: Faults) -> Draft:
    """The recipe in a source as far as its structure is right."""
    content = source.content
    if not isinstance(content, dict):
        raise source.error((), f"a recipe is a mapping with the keys {listed(_TOP)}.")
    for key in content:
        if key not in _TOP:
            faults.add(
                source.error(
                    (key,),
                    f"unknown key {key!r}.{nearest(str(key), _TOP)} Allowed: {listed(_TOP)}.",
                )
            )
    missing = [key for key in ("model", "data", "steps") if content.get(key) is None]
    meant = "".join(nearest(str(key), _TOP) for key in content if key not in _TOP)
    for key in missing:
        if repr(key) not in meant:
            faults.add(source.error((), f"the key {key!r} is missing."))
    steps = content.get("steps")
    if "steps" not in missing and (not isinstance(steps, list) or not steps):
        faults.add(source.error(("steps",), f"steps must be a list of {listed(STEPS)}."))
    return Draft(
        model=None if "model" in missing else _named(source, "model", faults),
        data=None if "data" in missing else _named(source, "data", faults),
        task=_named(source, "task", faults) if "task" in content else Named(CLASSIFICATION),
        steps=[
            _step(source, index, item, faults)
            for index, item in enumerate(steps if isinstance(steps, list) else ())
        ],
        **_scalars(source, faults),
    )


def _scalars(source: Source, faults: Faults) -> dict[str, Any]:
    """What needs no class of its own."""
    content = source.content
    weights, seed = content.get("weights"), content.get("seed", 0)
    requires = content.get("requires") or ()
    if not matches(weights, str | None):
        faults.add(source.error(("weights",), f"weights must be a file, got {weights!r}."))
        weights = None
    if not matches(seed, int):
        faults.add(source.error(("seed",), f"seed must be an integer, got {seed!r}."))
    elif (reason := fault_of_seed(seed)) is not None:
        faults.add(source.error(("seed",), reason))
    if not matches(freeze(requires), tuple[str, ...]):
        words = "requires must be a list of texts like 'name>=1.0'."
        faults.add(source.error(("requires",), words))
        requires = ()
    return {"weights": weights, "seed": seed, "requires": requires}


def dump(recipe: Recipe) -> str:
    """A recipe as YAML."""
    return plain_yaml.dump(to_plain(recipe))


def _named(source: Source, key: str, faults: Faults) -> Named | None:
    value = source.content[key]
    if isinstance(value, str):
        return Named(value)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return Named(value["name"], {k: v for k, v in value.items() if k != "name"})
    words = f"{key} must be a name, or a mapping with a name and options."
    faults.add(source.error((key,), words))
    return None


def _step(source: Source, index: int, item: Any, faults: Faults) -> DraftStep:
    key: Key = ("steps", index)
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        words = f"a step is one of {listed(STEPS)}, with its options below it."
        faults.add(source.error(key, words))
        return None
    ((name, values),) = item.items()
    if name not in STEPS:
        words = f"unknown step {name!r}.{nearest(str(name), STEPS)} Steps: {listed(STEPS)}."
        faults.add(source.error((*key, name), words))
        return None
    key = (*key, name)
    values = {} if values is None else values
    if not isinstance(values, dict):
        faults.add(source.error(key, _no_mapping(name, values)))
        return STEPS[name]
    return _built(STEPS[name], values, key, source, faults)


def _built(
    cls: type[Any], values: dict[Any, Any], key: Key, source: Source, faults: Faults
) -> DraftStep:
    """A step; options of its own that are faulty are told and left out."""
    own, unnamed = values, None
    technique = technique_field(cls)
    if technique is not None:
        own = {option: value for option, value in values.items() if option in own_fields(cls)}
        own["options"] = {option: v for option, v in values.items() if option not in own}
        field, _ = technique
        required = getattr(attrs.fields(cls), field).default is attrs.NOTHING
        if field not in own and required:
            words = f"{cls.key} needs the option {field!r}, a technique's name."
            unnamed = source.error(key, words)
        elif not isinstance(own.get(field, ""), str):
            words = f"{field} must be a name, got {own[field]!r}."
            unnamed = source.error((*key, field), words)
        if unnamed is not None:
            faults.add(unnamed)
            own[field] = ""
    try:
        step: Step = build(cls, own, owner=cls.key)
    except OptionError as error:
        for fault in (error, *error.others):
            faults.add(source.error((*key, fault.option or ""), str(fault)), error)
            own = {option: value for option, value in own.items() if option != fault.option}
        step = build(cls, own)
    return step if unnamed is None else cls


def _no_mapping(step: str, value: Any) -> str:
    hint, technique = "", technique_field(STEPS[step])
    if technique is not None and isinstance(value, str):
        hint = f" Write {step}: {{{technique[0]}: {value}}}."
    return f"the options of {step} must be a mapping, got {value!r}.{hint}"


def _open(name: str) -> Source:
    path = Path(name)
    reason = why_no_file(path)
    if path.suffix in (".yaml", ".yml") or reason is None:
        return parse(_text(path, reason), shown(name), path.parent)
    recipes = shipped()
    if name not in recipes:
        raise RecipeError(
            f"There is no recipe {shown(name)!r}, neither a file nor a shipped one."
            f"{nearest(name, recipes)} Shipped: {listed(recipes)}."
        )
    text = (resources.files("micronet.recipe") / "shipped" / f"{name}.yaml").read_text("utf-8")
    return parse(text, name, Path())


def _text(path: Path, reason: str | None) -> str:
    """A file's text, as far as a recipe can go; `reason` tells why it can't be read."""
    if reason is None:
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(plain_yaml.LONGEST + 1)
        except OSError as error:
            reason = error.strerror
        except UnicodeDecodeError:
            reason = "it is not UTF-8 text"
    raise RecipeError(f"{shown(path)} can't be read: {reason}.")


def parse(text: str, name: str, folder: Path) -> Source:
    """YAML text as a source; raises RecipeError where it is not plain YAML."""
    return Source(name, *plain_yaml.load(text, name), folder)


def _change(source: Source, change: str) -> Source:
    path, equals, text = change.partition("=")
    if not equals:
        raise RecipeError(f"--set {change}: write it as path=value, as in steps.0.train.epochs=3.")
    value = parse(text, f"--set {change}", source.folder).content
    content = _copied(source.content)
    place, parts = content, path.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        so_far = ".".join(parts[: depth + 1])
        if isinstance(place, list):
            if not (part.isascii() and part.isdigit()) or int(part) >= len(place):
                raise RecipeError(
                    f"--set {change}: {so_far} does not exist; {'.'.join(parts[:depth])} has "
                    f"{len(place)} entries, counted from 0."
                )
            index: Any = int(part)
        elif isinstance(place, dict):
            index = part
            if not last and part not in place:
                raise RecipeError(
                    f"--set {change}: {so_far} does not exist.{nearest(part, map(str, place))} "
                    f"There: {listed(map(str, place))}."
                )
        else:
            raise RecipeError(f"--set {change}: {'.'.join(parts[:depth])} is no mapping or list.")
        if last:
            place[index] = value
        else:
            if place[index] is None:  # `- train:` with nothing below it
                place[index] = {}
            elif isinstance(place, list) and place[index] == parts[depth + 1]:  # `- train`
                place[index] = {place[index]: {}}
            place = place[index]
    return attrs.evolve(source, content=content, changes=(*source.changes, change))


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
