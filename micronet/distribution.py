"""The installed distribution that this package is part of."""

from __future__ import annotations

import functools
from importlib.metadata import Distribution, PackageNotFoundError, distributions

from packaging.utils import canonicalize_name

NAME = "micronet"
_COMMAND = "micronet.cli:main"


@functools.cache
def own_version() -> str:
    """Its version; that of no other which calls itself micronet and comes first on the path."""
    named = list(distributions(name=NAME))
    for distribution in [*filter(_brings_command, named), *named]:
        return distribution.version
    raise PackageNotFoundError(NAME)


def is_impostor(distribution: Distribution | None) -> bool:
    """Whether it calls itself micronet and is another: micronet's own brings the command."""
    return (
        distribution is not None
        and canonicalize_name(distribution.name) == NAME
        and not _brings_command(distribution)
    )


def _brings_command(distribution: Distribution) -> bool:
    try:
        points = distribution.entry_points
    except Exception:  # they do not parse
        return False
    return any(point.group == "console_scripts" and point.value == _COMMAND for point in points)
