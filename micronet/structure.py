"""Nested values: tuples, lists, dicts, named tuples and dataclasses, and what lies in them."""

from __future__ import annotations

import dataclasses
import keyword
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import attrs

from micronet.errors import DataError, MicronetError, listed

_FIELDS = "namedtuple", "dataclass"
_KINDS = "tuple", "list", "dict", "OrderedDict", *_FIELDS


def _keys(keys: Iterable[str | int]) -> tuple[str | int, ...]:
    return tuple(keys)


def _parts(parts: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(parts)


@attrs.frozen
class Nest:
    """One level of a nested value.

    Args:
        kind: "tuple", "list", "dict", "OrderedDict", "namedtuple" or "dataclass".
        keys: Positions, keys or names of the fields.
        parts: For each key a `Nest`, `None`, or a leaf.
        type_name: Of a named tuple or a dataclass.
    """

    kind: str
    keys: tuple[str | int, ...] = attrs.field(converter=_keys)
    parts: tuple[Any, ...] = attrs.field(converter=_parts)
    type_name: str = ""


def nest(value: Any) -> Any:
    """A nested value as `Nest`s; what is no container is a leaf, and `None` is itself.

    Raises:
        MicronetError: A key of a dict is neither a string nor an integer.
    """
    if isinstance(value, Mapping):
        kind = "OrderedDict" if isinstance(value, OrderedDict) else "dict"
        for key in value:
            if not isinstance(key, (str, int)):
                raise MicronetError(f"Keys must be strings or integers, got {key!r}.")
        return Nest(kind, value.keys(), map(nest, value.values()))
    if isinstance(value, (tuple, list)):
        fields = getattr(value, "_fields", None)
        if fields is not None:
            return Nest("namedtuple", fields, map(nest, value), type(value).__name__)
        kind = "list" if isinstance(value, list) else "tuple"
        return Nest(kind, range(len(value)), map(nest, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        parts = [nest(getattr(value, name)) for name in names]
        return Nest("dataclass", names, parts, type(value).__name__)
    return value


def check(nest: Nest) -> None:
    """Refuses a nest, read from a file, that nothing was ever made of.

    Raises:
        DataError: Its kind is unknown, or a name in it could be none of Python's.
    """
    if nest.kind not in _KINDS:
        raise DataError(f"{nest.kind!r} is no container; allowed: {listed(_KINDS)}.")
    names = [nest.type_name, *nest.keys] if nest.kind in _FIELDS else []
    for name in names:
        if not (isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)):
            raise DataError(f"{name!r} can't name a {nest.kind} or a field of one.")


def leaves(tree: Any) -> Iterator[Any]:
    """The leaves of a tree of `Nest`s, in order."""
    if isinstance(tree, Nest):
        for part in tree.parts:
            yield from leaves(part)
    elif tree is not None:
        yield tree


def with_leaves(tree: Any, values: Iterator[Any]) -> Any:
    """The same tree with other leaves, in order."""
    if isinstance(tree, Nest):
        return attrs.evolve(tree, parts=[with_leaves(part, values) for part in tree.parts])
    return None if tree is None else next(values)


def build(tree: Any) -> Any:
    """The nested value that a tree describes; the inverse of `nest`.

    Named tuples and dataclasses are of classes made here, with the names and fields of the old
    ones: a file that says what to build must not say what to import.
    """
    if not isinstance(tree, Nest):
        return tree
    parts = [build(part) for part in tree.parts]
    if tree.kind in _FIELDS:
        return _class(tree.kind, tree.type_name, tree.keys)(*parts)
    if tree.kind in ("dict", "OrderedDict"):
        pairs = zip(tree.keys, parts, strict=True)
        return OrderedDict(pairs) if tree.kind == "OrderedDict" else dict(pairs)
    return parts if tree.kind == "list" else tuple(parts)


def names(tree: Any, root: str) -> list[str]:
    """A name for each leaf.

    A leaf alone is `root`. Keys and fields are joined by dots, positions follow an underscore:
    `boxes`, `root_0`, `root_1.boxes`.
    """
    return list(_names(tree, root, top=True))


def _names(tree: Any, prefix: str, *, top: bool) -> Iterator[str]:
    if isinstance(tree, Nest):
        for key, part in zip(tree.keys, tree.parts, strict=True):
            path = key if top and isinstance(key, str) else _path(prefix, key)
            yield from _names(part, path, top=False)
    elif tree is not None:
        yield prefix


def _path(prefix: str, key: str | int) -> str:
    return f"{prefix}_{key}" if isinstance(key, int) else f"{prefix}.{key}".lstrip(".")


def matching(tree: Any, value: Any, path: str, refuse: Callable[[str, str, Any], None]) -> Any:
    """The leaves of a nested value that is built like a tree, as that tree.

    Args:
        tree: What the value must be like; lists and tuples may stand for each other.
        value: The nested value.
        path: Its name.
        refuse: Raises an error for a name, what must be there, and what is there.
    """
    if tree is None:
        if value is not None:
            refuse(path, "None", value)
        return None
    if not isinstance(tree, Nest):
        return value
    if tree.kind in ("dict", "OrderedDict"):
        if not isinstance(value, Mapping) or set(value) != set(tree.keys):
            refuse(path, f"a dict of {_listed(tree.keys)}", value)
        parts = [value[key] for key in tree.keys]
    elif tree.kind == "dataclass" and not isinstance(value, (tuple, list)):
        if not all(hasattr(value, str(key)) for key in tree.keys):
            refuse(path, f"an object with {_listed(tree.keys)}", value)
        parts = [getattr(value, str(key)) for key in tree.keys]
    else:
        if not isinstance(value, (tuple, list)) or len(value) != len(tree.keys):
            refuse(path, f"a {tree.kind} of {len(tree.keys)}", value)
        parts = list(value)
    paths = [_path(path, key) for key in tree.keys]
    triples = zip(tree.parts, parts, paths, strict=True)
    return attrs.evolve(tree, parts=[matching(*triple, refuse) for triple in triples])


def described(value: Any) -> str:
    """What a value is, in a few words."""
    if value is None:
        return "None"
    name = type(value).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    if isinstance(value, Mapping):
        return f"{article} {name} of {_listed(value)}"
    if isinstance(value, (tuple, list)):
        return f"{article} {name} of {len(value)}"
    return f"{article} {name}"


def _listed(keys: Any) -> str:
    return ", ".join(map(str, keys)) or "nothing"


@cache
def _class(kind: str, name: str, fields: tuple[str, ...]) -> Callable[..., Any]:
    if kind == "namedtuple":
        return namedtuple(name, fields)  # noqa: PYI024 (its fields are known at run time only)
    return dataclasses.make_dataclass(name, fields)
