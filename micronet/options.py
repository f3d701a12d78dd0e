"""Options: the attrs fields of a technique or a recipe step, typed, validated, documented once.

>>> import attrs
>>> @attrs.frozen(kw_only=True)
... class Example:
...     bits: int = option(8, ge=2, le=16, doc="Width of the integer grid.")
>>> build(Example, {"bits": 99})
Traceback (most recent call last):
micronet.errors.OptionError: bits must be between 2 and 16, got 99.
"""

import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union

import attrs

from micronet.errors import MicronetError, OptionError, describe_error, listed, nearest

T = TypeVar("T")

_METADATA = "micronet"
_TYPE_NAMES = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


@attrs.frozen
class Limits:
    """What a value may be beyond its type. `ge` and `le` include the bound, `gt` does not."""

    doc: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    least: float | None = None
    most: float | None = None

    @property
    def range(self) -> str | None:
        """The bounds as words, `None` where there are none."""
        if self.ge is not None and self.le is not None:
            return f"between {self.ge:g} and {self.le:g}"
        lower = (
            f"at least {self.ge:g}"
            if self.ge is not None
            else f"above {self.gt:g}"
            if self.gt is not None
            else ""
        )
        upper = f"at most {self.le:g}" if self.le is not None else ""
        return " and ".join(filter(None, [lower, upper])) or None

    def wanted(self, value: float) -> str | None:
        """What a number had to be that is not allowed, `None` for one that is."""
        within = (
            (isinstance(value, int) or math.isfinite(value))
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
        )
        if not within:
            return self.range or "a finite number"
        if self.most is not None and value > self.most:
            return f"at most {self.most:.12g}"
        if self.least is not None and value < self.least:
            return f"at least {self.least:g}"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return "an integer of at most 64 bits"
        return None


@attrs.frozen
class OptionInfo:
    """One option as `micronet show`, the recipe schema and the documentation tell it."""

    name: str
    type: str
    default: Any
    required: bool
    range: str | None
    doc: str


def option(
    default: Any = attrs.NOTHING,
    *,
    doc: str,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """An attrs field that validates itself.

    Args:
        default: The value if none is given; without one the option is required.
        doc: One sentence for the user, with the unit where there is one.
        ge: Smallest allowed number.
        gt: Number that the value must exceed.
        le: Largest allowed number.
        least: Number below which no machine can go, told only to those who do.
        most: The same above.
    """
    return attrs.field(
        default=default,
        converter=freeze,
        validator=_validate,
        metadata={_METADATA: Limits(doc, ge=ge, gt=gt, le=le, least=least, most=most)},
    )


def build(cls: Callable[..., T], values: Mapping[str, Any], *, owner: str | None = None) -> T:
    """An instance of `cls` from user input.

    Raises:
        OptionError: Unknown name (with the nearest one), missing, wrongly typed or out of range.
            What else is wrong is in its `others`.
    """
    faults = _faults(cls, values, owner)
    if faults:
        raise OptionError(str(faults[0]), faults[0].option, faults[1:])
    try:
        return cls(**values)
    except OptionError as error:
        if owner is None:
            raise
        raise OptionError(f"{owner}: {error}", error.option) from error
    except (MicronetError, KeyboardInterrupt):
        raise
    except BaseException as error:  # validators and defaults of a plugin may raise anything
        whose = owner or getattr(cls, "__name__", "this")
        raise OptionError(f"{whose} refuses its options: {describe_error(error)}.") from error


def _faults(cls: Any, values: Mapping[str, Any], owner: str | None) -> list[OptionError]:
    """What can be said of each value alone, and of what is not given."""
    infos, hints, prefix = describe(cls), hints_of(cls), f"{owner}: " if owner else ""
    known = [info.name for info in infos]
    faults = [
        OptionError(
            f"{owner or getattr(cls, '__name__', 'this')} has no option {name!r}."
            f"{nearest(str(name), known)} Allowed: {listed(known)}.",
            name,
        )
        for name in values
        if name not in known
    ]
    faults += [
        OptionError(f"{owner or 'this'} needs the option {info.name!r}.", info.name)
        for info in infos
        if info.required and info.name not in values
    ]
    told = {
        field.name: _fault(field.name, hints[field.name], limits(field), freeze(values[field.name]))
        for field in attrs.fields(cls)
        if _METADATA in field.metadata and field.name in values
    }
    return faults + [OptionError(prefix + text, name) for name, text in told.items() if text]


def describe(cls: Any) -> list[OptionInfo]:
    """The options of an attrs class, in the order in which it declares them."""
    hints = hints_of(cls)
    return [
        OptionInfo(
            name=field.name,
            type=type_name(hints[field.name]),
            default=plain_default(field),
            required=field.default is attrs.NOTHING,
            range=limits(field).range,
            doc=limits(field).doc,
        )
        for field in attrs.fields(cls)
    ]


def hints_of(cls: Any) -> dict[str, Any]:
    """The types of a class's fields; raises OptionError where one has none or does not resolve."""
    try:
        hints = typing.get_type_hints(cls)
    except Exception as error:
        told = describe_error(error)
        raise OptionError(
            f"The options of {cls.__name__} have types that do not resolve: {told}."
        ) from error
    for field in attrs.fields(cls):
        if field.name not in hints:
            raise OptionError(f"The option {field.name!r} of {cls.__name__} has no type.")
    return hints


def plain_default(field: Any) -> Any:
    """A field's default as JSON knows it; `None` also where there is none or it is computed."""
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = None if default.takes_self else default.factory()
    if default is attrs.NOTHING:
        return None
    try:
        json.dumps(default, allow_nan=False)
    except (TypeError, ValueError):
        return str(default)
    return default


def limits(field: Any) -> Limits:
    """The limits of an attrs field; fields not made by `option` have none and no doc."""
    return field.metadata.get(_METADATA) or Limits("")


def type_name(hint: Any) -> str:
    """A type as a user writes it: `int`, `tuple[int, ...]`, `'a' | 'b'`."""
    if typing.get_origin(hint) is Literal:
        return " | ".join(repr(choice) for choice in typing.get_args(hint))
    if _is_union(hint):
        return " | ".join(type_name(part) for part in typing.get_args(hint))
    if hint is type(None):
        return "None"
    if typing.get_origin(hint) is Mapping or hint is Mapping:
        return "mapping"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, strictly: a bool is no number, `'8'` is no integer."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if _is_union(hint):
        return any(matches(value, part) for part in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and _items_match(value, arguments)
    if hint is Any or origin is not None:
        return hint is Any or isinstance(value, origin)
    types = (int, float) if hint is float else hint
    return isinstance(value, types) and not (isinstance(value, bool) and hint is not bool)


def _items_match(items: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if hints[-1] is Ellipsis:
        return all(matches(item, hints[0]) for item in items)
    return len(items) == len(hints) and all(map(matches, items, hints))


def _validate(instance: Any, field: Any, value: Any) -> None:
    hint = hints_of(type(instance))[field.name]
    told = _fault(field.name, hint, limits(field), value)
    if told is not None:
        raise OptionError(told, field.name)


def _fault(name: str, hint: Any, bounds: Limits, value: Any) -> str | None:
    """What is wrong with a value, if anything is."""
    if not matches(value, hint):
        return f"{name} must be {_expected(hint)}, got {_shown(value)}."
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        wanted = bounds.wanted(value)
        return None if wanted is None else f"{name} must be {wanted}, got {_shown(value)}."
    if not isinstance(value, (Mapping, tuple, list)):
        return None
    parts = value.values() if isinstance(value, Mapping) else value
    return next(filter(None, (_fault(name, Any, Limits(""), part) for part in parts)), None)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no integers of thousands of digits
        return "a number of thousands of digits"


def _expected(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return f"one of {listed(map(repr, typing.get_args(hint)))}"
    if _is_union(hint):
        return " or ".join(_expected(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        arguments = typing.get_args(hint)
        number = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"a list of {number}{type_name(arguments[0])}"
    if hint is type(None):
        return "null"
    return _TYPE_NAMES.get(hint) or (
        "a mapping" if typing.get_origin(hint) is not None else type_name(hint)
    )


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def freeze(value: Any) -> Any:
    """YAML knows lists only; options are immutable."""
    return tuple(freeze(item) for item in value) if isinstance(value, list) else value
