"""Reads recipes from YAML, and keeps the line of everything for the messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import yaml

from micronet.errors import DataError, OptionError, RecipeError, listed, nearest
from micronet.options import build, matches
from micronet.recipe import STEPS, Named, Recipe, Step, own_fields, technique_field, to_plain
from micronet.storage.files import read_text

Key = tuple[str | int, ...]
"""Where something stands in a recipe: `("steps", 0, "train", "lr")`."""

_TOP = ("model", "data", "weights", "seed", "requires", "steps")


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
                return RecipeError(f"{self.name}:{line}: {message}{ends}")
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
    source = _open(name)
    for change in changes:
        source = _change(source, change)
    return structure(source), source


def structure(source: Source) -> Recipe:
    """The recipe in a source; raises as `read`."""
    content = source.content
    if not isinstance(content, dict):
        raise source.error((), f"a recipe is a mapping with the keys {listed(_TOP)}.")
    for key in content:
        if key not in _TOP:
            raise source.error(
                (key,), f"unknown key {key!r}.{nearest(str(key), _TOP)} Allowed: {listed(_TOP)}."
            )
    for key in ("model", "data", "steps"):
        if content.get(key) is None:
            raise source.error((), f"the key {key!r} is missing.")
    if not isinstance(content["steps"], list) or not content["steps"]:
        raise source.error(("steps",), f"steps must be a list of {listed(STEPS)}.")
    _check_scalars(source)
    return Recipe(
        model=_named(source, "model"),
        data=_named(source, "data"),
        weights=content.get("weights"),
        seed=content.get("seed", 0),
        requires=content.get("requires") or (),
        steps=tuple(_step(source, index, item) for index, item in enumerate(content["steps"])),
    )


def _check_scalars(source: Source) -> None:
    """The types of what needs no class of its own."""
    content = source.content
    for key, kind, words in (
        ("seed", int, "an integer"),
        ("weights", str | None, "a file"),
    ):
        if key in content and not matches(content[key], kind):
            raise source.error((key,), f"{key} must be {words}, got {content[key]!r}.")
    if content.get("seed", 0) < 0:
        raise source.error(("seed",), f"seed must be at least 0, got {content['seed']}.")
    requires = content.get("requires") or []
    if not isinstance(requires, list) or not all(isinstance(item, str) for item in requires):
        raise source.error(("requires",), "requires must be a list of texts like 'name>=1.0'.")


def dump(recipe: Recipe) -> str:
    """A recipe as YAML."""
    text: str = yaml.dump(to_plain(recipe), Dumper=_Dumper, sort_keys=False, width=100)
    return text


def _named(source: Source, key: str) -> Named:
    value = source.content[key]
    if isinstance(value, str):
        return Named(value)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return Named(value["name"], {k: v for k, v in value.items() if k != "name"})
    raise source.error((key,), f"{key} must be a name, or a mapping with a name and options.")


def _step(source: Source, index: int, item: Any) -> Step:
    key: Key = ("steps", index)
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise source.error(key, f"a step is one of {listed(STEPS)}, with its options below it.")
    ((name, values),) = item.items()
    if name not in STEPS:
        raise source.error(
            (*key, name),
            f"unknown step {name!r}.{nearest(str(name), STEPS)} Steps: {listed(STEPS)}.",
        )
    key = (*key, name)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise source.error(key, _no_mapping(name, values))
    cls = STEPS[name]
    technique = technique_field(cls)
    own = {option: value for option, value in values.items() if option in own_fields(cls)}
    if technique is not None:
        own["options"] = {option: v for option, v in values.items() if option not in own}
        field, _ = technique
        default = getattr(attrs.fields(cls), field).default
        if field not in own and default is attrs.NOTHING:
            raise source.error(key, f"{name} needs the option {field!r}, a technique's name.")
        if field in own and not isinstance(own[field], str):
            raise source.error((*key, field), f"{field} must be a name, got {own[field]!r}.")
    else:
        own = values
    try:
        step: Step = build(cls, own, owner=name)
    except OptionError as error:
        raise source.error((*key, error.option or ""), str(error)) from error
    return step


def _no_mapping(step: str, value: Any) -> str:
    hint, technique = "", technique_field(STEPS[step])
    if technique is not None and isinstance(value, str):
        hint = f" Write {step}: {{{technique[0]}: {value}}}."
    return f"the options of {step} must be a mapping, got {value!r}.{hint}"


def _open(name: str) -> Source:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or _is_file(path):
        try:
            text = read_text(name)
        except DataError as error:
            raise RecipeError(str(error)) from error
        return parse(text, name, path.parent)
    recipes = shipped()
    if name not in recipes:
        raise RecipeError(
            f"There is no recipe {name!r}, neither a file nor a shipped one."
            f"{nearest(name, recipes)} Shipped: {listed(recipes)}."
        )
    text = (resources.files("micronet.recipe") / "shipped" / f"{name}.yaml").read_text("utf-8")
    return parse(text, name, Path())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a whole recipe was given in the place of its name
        return False


def parse(text: str, name: str, folder: Path) -> Source:
    """YAML text as a source; raises RecipeError where it is not YAML."""
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        lines: dict[Key, int] = {}
        if root is not None:
            _note_lines(root, (), lines, name, loader)
        content = loader.construct_document(root) if root is not None else None
    except RecursionError:
        raise RecipeError(f"{name}: it nests too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "this is not YAML"
        raise RecipeError(f"{where}: {problem}.") from error
    finally:
        if loader is not None:
            loader.dispose()
    return Source(name, content, lines, folder)


class _Loader(yaml.SafeLoader):
    """YAML where `1e-4` is a number, as everybody expects."""


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as it was, without anchors."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def _note_lines(
    node: yaml.Node, key: Key, lines: dict[Key, int], name: str, loader: _Loader
) -> None:
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError(f"{name}:{line}: a key must be a text.")
            merges = key_node.tag.endswith(":merge")
            word = key_node.value if merges else loader.construct_object(key_node)
            inner = (*key, word)
            if word in seen:
                raise RecipeError(f"{name}:{line}: the key {word!r} stands here twice.")
            seen.add(word)
            lines[inner] = line
            _note_lines(value_node, inner, lines, name, loader)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*key, index), lines, name, loader)


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
