"""The JSON Schema of a recipe, for editors; made from the steps' and techniques' options."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

import attrs

from micronet import options, registry
from micronet.errors import MicronetError, describe_error
from micronet.recipe import LARGEST_SEED, STEPS, own_fields, technique_field

_CALLABLE = r"^[\w.]+:\w+$"
"""`package.module:callable`."""


def recipe_schema() -> dict[str, Any]:
    """Draft 2020-12. Covers every technique that is installed where it is made.

    Those that are broken are left out; its `$comment` says which, and why.
    """
    faults: list[str] = []
    steps = [_step(name, cls, faults) for name, cls in STEPS.items()]
    bare = [name for name, cls in STEPS.items() if technique_field(cls) is None]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "micronet recipe",
        "type": "object",
        "additionalProperties": False,
        "required": ["model", "data", "steps"],
        "properties": {
            "model": _named("model", "A registered model, or package.module:callable.", faults),
            "data": _named("dataset", "A registered data set, or package.module:callable.", faults),
            "task": _named("task", "A registered task, or package.module:Class.", faults),
            "weights": {"type": ["string", "null"], "description": "A state_dict to start from."},
            "seed": {
                "type": "integer",
                "default": 0,
                "minimum": 0,
                "maximum": LARGEST_SEED,
                "description": "Of everything random.",
            },
            "requires": {"type": ["array", "null"], "items": {"type": "string"}},
            "steps": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [*steps, {"enum": [*bare, "fuse", "deploy"]}]},
            },
        },
    }
    if faults:
        schema["$comment"] = f"Left out of the schema: {' '.join(faults)}"
    return schema


def _step(name: str, cls: type[Any], faults: list[str]) -> dict[str, Any]:
    own = _properties(cls, own_fields(cls))
    technique = technique_field(cls)
    body: dict[str, Any] = {
        "type": ["object", "null"],
        "description": (cls.__doc__ or "").strip(),
        "properties": own,
    }
    if technique is None:
        body["additionalProperties"] = False
    else:
        field, kind = technique
        default = getattr(attrs.fields(cls), field).default
        variants = []
        for spelled, properties, required in _techniques(kind, faults):
            variant: dict[str, Any] = {
                "properties": {**dict.fromkeys(own, True), **properties},
                "additionalProperties": False,
            }
            variant["properties"][field] = {"enum": spelled}
            variant["required"] = required if default in spelled else [field, *required]
            variants.append(variant)
        body["anyOf"] = variants or [{"not": {}}]
        if default is attrs.NOTHING:
            body["type"] = "object"
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name],
        "properties": {name: body},
    }


def _named(kind: str, description: str, faults: list[str]) -> dict[str, Any]:
    variants, bare = [], []
    for spelled, properties, required in _techniques(kind, faults):
        if not required:
            bare += spelled
        variants.append(
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", *required],
                "properties": {"name": {"enum": spelled}, **properties},
            }
        )
    own = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "pattern": _CALLABLE}},
    }
    return {
        "description": description,
        "anyOf": [{"enum": sorted(bare)}, {"type": "string", "pattern": _CALLABLE}, *variants, own],
    }


def _techniques(kind: str, faults: list[str]) -> list[tuple[list[str], dict[str, Any], list[str]]]:
    """The names of techniques with the same options, these options, and those required.

    Of those that are broken, `faults` gets a sentence each.
    """
    found: list[tuple[list[str], dict[str, Any], list[str]]] = []
    for entry in registry.list(kind):
        if entry.kind != kind:
            continue
        try:
            cls = registry.get(kind, f"{entry.distribution}:{entry.name}")
            names = [field.name for field in attrs.fields(cls)]
            required = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING]
            properties = _properties(cls, names)
            json.dumps(properties, allow_nan=False)
        except MicronetError as error:
            faults.append(str(error))
            continue
        except Exception as error:  # a type that JSON does not know, say
            whose = f"{kind} {entry.name!r} of {entry.distribution} {entry.version}"
            faults.append(f"{whose} has options that no schema can tell: {describe_error(error)}.")
            continue
        spelled = [f"{entry.distribution}:{entry.name}"]
        if entry.error is None:
            spelled.append(entry.name)
        alike = next((names for names, *rest in found if rest == [properties, required]), None)
        if alike is None:
            found.append((spelled, properties, required))
        else:
            alike += spelled
    return found


def _properties(cls: type[Any], names: list[str]) -> dict[str, Any]:
    hints = options.hints_of(cls)
    properties = {}
    for field in attrs.fields(cls):
        if field.name not in names:
            continue
        limits = options.limits(field)
        described = {**_type(hints[field.name]), "description": limits.doc}
        computed = getattr(field.default, "takes_self", False)
        if field.default is not attrs.NOTHING and not computed:
            described["default"] = options.plain_default(field)
        for bound, word in (("ge", "minimum"), ("gt", "exclusiveMinimum"), ("le", "maximum")):
            if getattr(limits, bound) is not None:
                described[word] = getattr(limits, bound)
        properties[field.name] = described
    return properties


def _type(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_type(part) for part in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0])}
    if origin is Mapping:
        return {"type": "object"}
    names = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
    return {"type": names[hint]} if hint in names else {}
