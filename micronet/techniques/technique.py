"""What a plugin's hook returns: a technique's name and where to find it, nothing loaded yet."""

from __future__ import annotations

from typing import Any

import attrs


def _is_text(_: Technique, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"the {field.name} of a Technique must be a text, got {value!r}")


def _is_printable(_: Technique, field: attrs.Attribute[Any], value: str) -> None:
    if not value.isprintable():
        raise ValueError(f"the {field.name} of a Technique can't be printed, {value!r}")


@attrs.frozen
class Technique:
    """An entry of the catalogue.

    Args:
        name: The name that recipes use, unique within its kind and distribution.
        summary: One sentence for `micronet list-plugins`.
        target: The class, as `"package.module:Class"`; imported on first use.
        extra: The extra of the plugin's distribution that the technique needs, if any.
    """

    name: str = attrs.field(validator=[_is_text, _is_printable])
    summary: str = attrs.field(validator=_is_text)
    target: str = attrs.field(validator=[_is_text, attrs.validators.matches_re(r"[\w.]+:\w+")])
    extra: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text))
