"""Finds plugins through entry points, each on its own, so that a broken one harms nobody else.

pluggy's own `load_setuptools_entrypoints` is not used: one failing import there ends all loading,
two distributions with the same entry-point name load only once, and a plugin that fails
validation stays registered.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, EntryPoint, distributions, version
from itertools import chain
from typing import Literal

import attrs
import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from micronet import hookspecs
from micronet.distribution import is_impostor, own_version
from micronet.errors import PluginError, message_of
from micronet.hookspecs import ENTRY_POINT_GROUP
from micronet.registry.undisturbed import undisturbed
from micronet.streams import stdout_on_stderr
from micronet.techniques import KINDS, Technique

BLOCK_VARIABLE = "MICRONET_BLOCK_PLUGINS"
STRICT_VARIABLE = "MICRONET_STRICT_PLUGINS"
_GROUP_FAMILY = "micronet.plugins."


@attrs.frozen
class Plugin:
    """One entry point and what came of it.

    Args:
        name: The entry point's name.
        distribution: Name of the distribution that declares it.
        version: That distribution's version.
        status: "ok", "failed" or "blocked".
        techniques: What it brings, by kind.
        error: Why it failed, and the line that uninstalls it.
        cause: The exception behind `error`, where there was one.
        missing: For each of its distribution's extras, the requirements that are not installed.
        seconds: How long its import took.
        imports_torch: Whether its import took torch in.
    """

    name: str
    distribution: str
    version: str
    status: Literal["ok", "failed", "blocked"]
    techniques: Mapping[str, tuple[Technique, ...]] = attrs.field(factory=dict)
    error: str | None = None
    cause: BaseException | None = attrs.field(default=None, eq=False)
    missing: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    seconds: float = 0.0
    imports_torch: bool = False


def discover() -> list[Plugin]:
    """Every installed plugin, in the order of distribution and entry-point name.

    Raises:
        BaseException: A plugin's own error, when MICRONET_STRICT_PLUGINS is 1.
    """
    blocked: set[str] = {
        canonicalize_name(name) for name in _names(os.environ.get(BLOCK_VARIABLE, ""))
    }
    strict = os.environ.get(STRICT_VARIABLE) == "1"
    manager = pluggy.PluginManager("micronet")
    manager.add_hookspecs(hookspecs)
    plugins = []
    for point in _points():
        plugin = _load(manager, point, blocked)
        if strict and plugin.cause is not None:
            raise plugin.cause
        plugins.append(plugin)
    return plugins


def declared() -> set[str]:
    """Names of all plugins and of the distributions that bring them; imports none."""
    return {name for point in _points() for name in (point.name, _owner(point)[0])}


def _points() -> list[EntryPoint]:
    """Entry points of every API version; of distributions with one name, Python sees the first.

    One that calls itself micronet hides nothing of micronet's.
    """
    points: dict[tuple[str, bool], list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            key = canonicalize_name(distribution.name), is_impostor(distribution)
            found = distribution.entry_points
        except Exception:  # noqa: S112 (half uninstalled, or its entry points do not parse)
            continue
        ours = [point for point in found if point.group.startswith(_GROUP_FAMILY)]
        points.setdefault(key, ours)
    return sorted(
        chain.from_iterable(points.values()), key=lambda point: (_owner(point)[0], point.name)
    )


def _load(manager: pluggy.PluginManager, point: EntryPoint, blocked: set[str]) -> Plugin:
    distribution, found = _owner(point)
    plugin = Plugin(point.name, distribution, found, "ok")
    if blocked & {canonicalize_name(point.name), canonicalize_name(distribution)}:
        return attrs.evolve(plugin, status="blocked", error="blocked before import")
    if point.dist is not None and is_impostor(point.dist):
        told = (
            f"{point.dist.locate_file('')} holds another distribution that calls itself micronet; "
            f"nothing of it is imported. Remove or rename it"
        )
        return attrs.evolve(plugin, status="failed", error=told)
    registered = f"{distribution}:{point.name}"
    try:
        _check_versions(point)
        missing = _missing(point.dist)
        start, had_torch = time.perf_counter(), "torch" in sys.modules
        with stdout_on_stderr(), undisturbed():
            module = point.load()
            seconds = time.perf_counter() - start
            imports_torch = not had_torch and "torch" in sys.modules
            manager.register(module, name=registered)
            manager.check_pending()
            techniques = {kind: _techniques(manager, module, kind) for kind in KINDS}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even exit the process when it is imported
        if manager.has_plugin(registered):
            manager.unregister(name=registered)
        return attrs.evolve(plugin, status="failed", error=_told(error, distribution), cause=error)
    return attrs.evolve(
        plugin,
        techniques=techniques,
        missing=missing,
        seconds=seconds,
        imports_torch=imports_torch,
    )


def _techniques(manager: pluggy.PluginManager, module: object, kind: str) -> tuple[Technique, ...]:
    others = [other for other in manager.get_plugins() if other is not module]
    hook = manager.subset_hook_caller(f"micronet_{kind}s", remove_plugins=others)
    techniques: list[Technique] = []
    for brought in hook():
        if not isinstance(brought, (list, tuple)):
            raise PluginError(f"micronet_{kind}s returned {brought!r}, not a list")
        for technique in brought:
            if not isinstance(technique, Technique):
                raise PluginError(
                    f"micronet_{kind}s returned {technique!r}, not a micronet.techniques.Technique"
                )
            plain = (technique.name, technique.summary, technique.target, technique.extra)
            techniques.append(Technique(*plain))  # whatever its class adds or hides
    names = Counter(technique.name for technique in techniques)
    if twice := [name for name, count in names.items() if count > 1]:
        raise PluginError(f"micronet_{kind}s names {min(twice)!r} twice")
    return tuple(techniques)


def _check_versions(point: EntryPoint) -> None:
    """Refuses a plugin written for another plugin API or another core, before it is imported."""
    core = own_version()
    if point.group != ENTRY_POINT_GROUP:
        wanted = point.group.removeprefix(_GROUP_FAMILY)
        ours = ENTRY_POINT_GROUP.removeprefix(_GROUP_FAMILY)
        raise PluginError(
            f"needs the plugin API {wanted}; micronet {core} speaks {ours}. Install versions of "
            f"both that fit"
        )
    for requirement in _requirements(point.dist):
        if canonicalize_name(requirement.name) != "micronet" or requirement.marker is not None:
            continue
        if not requirement.specifier.contains(core, prereleases=True):
            raise PluginError(
                f"{_owner(point)[0]} needs micronet {requirement.specifier}, found {core}"
            )


def _missing(distribution: Distribution | None) -> dict[str, tuple[str, ...]]:
    """Requirements of each extra that no installed distribution meets."""
    missing: dict[str, tuple[str, ...]] = {}
    for requirement in _requirements(distribution):
        if requirement.marker is None or "extra" not in str(requirement.marker):
            continue
        for extra in (
            (distribution.metadata.get_all("Provides-Extra") or []) if distribution else []
        ):
            if requirement.marker.evaluate({"extra": extra}) and not installed(requirement):
                missing[extra] = (*missing.get(extra, ()), str(requirement).split(";")[0].strip())
    return missing


def installed(requirement: Requirement) -> str | None:
    """The installed version that meets a requirement, `None` if none does."""
    from importlib.metadata import PackageNotFoundError

    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return None
    return found if requirement.specifier.contains(found, prereleases=True) else None


def _requirements(distribution: Distribution | None) -> Iterable[Requirement]:
    for line in (distribution.requires or []) if distribution else []:
        try:
            yield Requirement(line)
        except InvalidRequirement:  # pip has already had its say about it
            continue


def _owner(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "unknown", "0"
    return point.dist.name, point.dist.version


def _told(error: BaseException, distribution: str) -> str:
    text = " ".join(message_of(error).split())
    if isinstance(error, SystemExit):
        text = f"it exits the process when it is imported (status {text})"
    elif not isinstance(error, PluginError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{text.rstrip('.')}. To remove it: pip uninstall {distribution}"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
