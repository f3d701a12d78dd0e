"""The registry: every technique that an installed plugin brings, by kind and name.

    micronet.registry.get("quantizer", "iao")             # the class
    micronet.registry.create("quantizer", "iao", w_bits=4)  # a validated instance
    micronet.registry.list("observer")                    # what is there, failures included
    micronet.registry.describe("quantizer", "iao")        # its options

Plugins are discovered once, on first use; `reload` does it again.
"""

from __future__ import annotations

import builtins
import functools
from typing import Any

from micronet.registry.catalog import Catalog, Description, Entry
from micronet.registry.discovery import discover

__all__ = ["Catalog", "Description", "Entry", "create", "describe", "get", "list", "reload"]


@functools.cache
def _catalog() -> Catalog:
    return Catalog(discover())


def get(kind: str, name: str) -> type[Any]:
    """The technique's class. See `Catalog.get`."""
    return _catalog().get(kind, name)


def create(kind: str, name: str, /, **options: Any) -> Any:
    """A technique with its options. See `Catalog.create`."""
    return _catalog().create(kind, name, **options)


def list(kind: str | None = None) -> builtins.list[Entry]:  # noqa: A001 (the documented name)
    """All entries, of one kind or of all. See `Catalog.list`."""
    return _catalog().list(kind)


def describe(kind: str, name: str) -> Description:
    """A technique's options and documentation. See `Catalog.describe`."""
    return _catalog().describe(kind, name)


def reload() -> None:
    """Forgets what was discovered; the next call looks again."""
    _catalog.cache_clear()
