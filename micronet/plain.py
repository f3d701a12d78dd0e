"""Instances of classes out of plain data, as JSON gives it: nothing is guessed or converted."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin

from micronet.errors import DataError

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")


def structured(plain: Any, kind: type[T]) -> T:
    """An instance of a type from what JSON keeps of it.

    Args:
        plain: Dicts, lists, texts, numbers, truth values and `None`.
        kind: An attrs class, or a type such as `dict[str, int]`. A class with a method `from_plain`
            says itself how it is made.

    Raises:
        DataError: Something is missing, too much, or of another type; it says what and where.
    """
    from cattrs import BaseValidationError, transform_error

    try:
        result: T = _converter().structure(plain, kind)
    except BaseValidationError as error:
        reason, _, place = transform_error(error, format_exception=_reason)[0].partition(" @ $")
        raise DataError(f"{place.lstrip('.')}: {reason}" if place else reason) from error
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(_reason(error, kind)) from error
    return result


def from_json(text: str | bytes, kind: type[T]) -> T:
    """An instance of a type from JSON, in UTF-8 and without two values of one key.

    Args:
        text: The JSON.
        kind: As `structured` takes it.

    Raises:
        DataError: It is no JSON, or holds something else.
    """
    try:
        plain = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_without_doubles,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is no JSON: {error}") from error
    return structured(plain, kind)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) != len(pairs):
        double = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"{double!r} stands there twice")
    return plain


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


@cache
def _converter() -> Converter:
    from cattrs import Converter
    from cattrs.cols import (
        homogenous_tuple_structure_factory,
        is_sequence,
        list_structure_factory,
    )
    from cattrs.strategies import configure_union_passthrough

    converter = Converter(forbid_extra_keys=True)
    configure_union_passthrough(Union[str, bool, int, float, None], converter)  # noqa: UP007 (as it asks)
    numbers: dict[type, Any] = {int: int, float: (int, float), str: str, bool: bool}
    for kind, allowed in numbers.items():
        converter.register_structure_hook(kind, _exactly(kind, allowed))
    converter.register_structure_hook(Path, lambda value, _: Path(converter.structure(value, str)))
    converter.register_structure_hook_func(
        lambda kind: hasattr(kind, "from_plain"), lambda value, kind: kind.from_plain(value)
    )
    for predicate, factory in (
        (is_sequence, list_structure_factory),
        (_is_tuple, homogenous_tuple_structure_factory),
    ):
        converter.register_structure_hook_factory(predicate, _of_list(factory))
    return converter


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,)


def _of_list(factory: Callable[..., Any]) -> Callable[[Any, Converter], Any]:
    def make(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
        build = factory(kind, converter)

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"expected a list, got {_shown(value)}")
            return build(value, kind)

        return structure

    return make


def _exactly(kind: type, allowed: Any) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"expected {kind.__name__}, got {_shown(value)}")
        return value

    return structure


def _reason(error: BaseException, _: Any) -> str:
    from cattrs import ForbiddenExtraKeysError

    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}" if error.args else "it lacks something"
    if isinstance(error, ForbiddenExtraKeysError):
        return f"it has {min(error.extra_fields)!r} too many"
    if isinstance(error, AttributeError) or "not iterable" in str(error):
        return "expected a mapping"
    return str(error) or type(error).__name__


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 (for one line)
