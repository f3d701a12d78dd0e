"""Looks techniques up by kind and name, and says what exists when one is not there."""

from __future__ import annotations

import builtins
import functools
import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import attrs
from packaging.utils import canonicalize_name

from micronet.errors import OptionError, PluginError, describe_error, listed, nearest
from micronet.options import OptionInfo, build
from micronet.options import describe as describe_options
from micronet.registry.discovery import Plugin
from micronet.techniques import KINDS, Technique

BUILT_IN = "micronet"
_SLOW = 1.0
"""Seconds that no plugin's import should take."""


@attrs.frozen
class Entry:
    """One line of `micronet list-plugins`: a technique, or a plugin that brought none.

    Args:
        kind: The technique's kind; `None` for a plugin that failed or is blocked.
        name: The technique's name, or the plugin's.
        distribution: Who brings it.
        version: The distribution's version.
        summary: One sentence; empty if unknown.
        status: "ok", "failed" or "blocked".
        error: What is wrong, `None` if nothing is.
        install: The line that installs what the technique lacks, `None` if nothing does.
    """

    kind: str | None
    name: str
    distribution: str
    version: str
    summary: str
    status: Literal["ok", "failed", "blocked"]
    error: str | None = None
    install: str | None = None

    @property
    def family(self) -> str:
        """The name, or `torchvision/*` for all names that begin with `torchvision/`."""
        return family(self.name)


def family(name: str) -> str:
    """What stands for a name where there is no room for each of its kind; see `Entry.family`."""
    prefix, slash, _ = name.partition("/")
    return f"{prefix}/*" if slash else name


@attrs.frozen
class Description:
    """A technique as `micronet show` prints it."""

    kind: str
    name: str
    distribution: str
    version: str
    summary: str
    doc: str
    options: builtins.list[OptionInfo]


@attrs.frozen
class _Offer:
    technique: Technique
    plugin: Plugin


@attrs.frozen
class Catalog:
    """The techniques of a set of plugins."""

    plugins: Sequence[Plugin]

    def list(self, kind: str | None = None) -> builtins.list[Entry]:
        """Every technique, and every plugin that failed or is blocked.

        Args:
            kind: Only techniques of this kind. Plugins that brought nothing are always listed:
                what they would have brought is not known.

        Raises:
            PluginError: There is no such kind.
        """
        if kind is not None:
            _check_kind(kind)
        entries = []
        for plugin in self.plugins:
            owner = {"distribution": plugin.distribution, "version": plugin.version}
            if plugin.status != "ok":
                entries.append(
                    Entry(
                        None,
                        plugin.name,
                        summary="",
                        status=plugin.status,
                        error=plugin.error,
                        **owner,
                    )
                )
                continue
            for found_kind, techniques in plugin.techniques.items():
                if kind not in (None, found_kind):
                    continue
                entries += [
                    Entry(
                        found_kind,
                        technique.name,
                        summary=technique.summary,
                        status="ok",
                        error=self._conflict(found_kind, technique.name, plugin.distribution)
                        or _slowness(plugin),
                        install=_install_line(technique, plugin),
                        **owner,
                    )
                    for technique in techniques
                ]
        order = [*KINDS, None]
        return sorted(entries, key=lambda entry: (order.index(entry.kind), entry.name))

    def get(self, kind: str, name: str) -> type[Any]:
        """The class behind a name.

        Args:
            kind: One of `micronet.techniques.KINDS`.
            name: A technique's name, or `distribution:name`.

        Raises:
            PluginError: Unknown (with the nearest match), brought by two distributions, or its
                module does not load or break the contract of its kind.
        """
        return _load(kind, self._find(kind, name))

    def create(self, kind: str, name: str, /, **options: Any) -> Any:
        """A technique with its options.

        Raises:
            PluginError: As `get`.
            OptionError: An option is unknown, missing, wrongly typed or out of range.
        """
        return build(self.get(kind, name), options, owner=f"{kind} {name!r}")

    def describe(self, kind: str, name: str) -> Description:
        """What a technique is and takes; raises as `get`."""
        offer = self._find(kind, name)
        cls = _load(kind, offer)
        return Description(
            kind=kind,
            name=offer.technique.name,
            distribution=offer.plugin.distribution,
            version=offer.plugin.version,
            summary=offer.technique.summary,
            doc=inspect.cleandoc(cls.__doc__ or ""),
            options=describe_options(cls),
        )

    def install_line(self, kind: str, name: str) -> str | None:
        """The line that installs what a technique lacks, `None` if it lacks nothing."""
        offer = self._find(kind, name)
        return _install_line(offer.technique, offer.plugin)

    def _offers(self, kind: str, name: str) -> builtins.list[_Offer]:
        return self._by_name.get((kind, name), [])

    @functools.cached_property
    def _by_name(self) -> dict[tuple[str, str], builtins.list[_Offer]]:
        offers: dict[tuple[str, str], builtins.list[_Offer]] = {}
        for plugin in self.plugins:
            for kind, techniques in plugin.techniques.items():
                for technique in techniques:
                    offer = _Offer(technique, plugin)
                    offers.setdefault((kind, technique.name), []).append(offer)
        return offers

    def _find(self, kind: str, name: str) -> _Offer:
        _check_kind(kind)
        distribution, colon, bare = name.rpartition(":")
        offers = self._offers(kind, bare)
        if colon:
            wanted = canonicalize_name(distribution)
            offers = [o for o in offers if canonicalize_name(o.plugin.distribution) == wanted]
        built_in = [offer for offer in offers if offer.plugin.distribution == BUILT_IN]
        if built_in:
            return built_in[0]
        if not offers:
            raise self._unknown(kind, name)
        if len(offers) > 1:
            choices = [f"{offer.plugin.distribution}:{bare}" for offer in offers]
            raise PluginError(
                f"{kind} {bare!r} comes from more than one distribution; write {listed(choices)}."
            )
        return offers[0]

    def _unknown(self, kind: str, name: str) -> PluginError:
        names = [technique.name for p in self.plugins for technique in p.techniques.get(kind, ())]
        shown = listed(dict.fromkeys(family(known) for known in names))
        message = f"There is no {kind} {name!r}.{nearest(name, names)} Installed: {shown}."
        lost = [plugin for plugin in self.plugins if plugin.status != "ok"]
        for plugin in lost:
            told = "is blocked" if plugin.status == "blocked" else f"failed: {plugin.error}"
            message += f" Plugin {plugin.name!r} of {plugin.distribution} {told}."
        error = PluginError(message)
        error.__cause__ = next((plugin.cause for plugin in lost if plugin.cause), None)
        return error

    def _conflict(self, kind: str, name: str, distribution: str) -> str | None:
        others = [
            offer.plugin.distribution
            for offer in self._offers(kind, name)
            if offer.plugin.distribution != distribution
        ]
        if not others or distribution == BUILT_IN:
            return None
        return f"{listed(others)} also has this name; write {distribution}:{name}"


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise PluginError(
            f"There is no kind {kind!r}.{nearest(kind, KINDS)} Kinds: {listed(KINDS)}."
        )


def _load(kind: str, offer: _Offer) -> type[Any]:
    technique = offer.technique
    origin = f"{kind} {technique.name!r} of {offer.plugin.distribution} {offer.plugin.version}"
    try:
        return _load_target(kind, technique.target, origin)
    except PluginError as error:
        line = _install_line(technique, offer.plugin)
        if line is None:
            raise
        raise PluginError(f"{error} It needs: {line}.") from error.__cause__


@functools.cache
def _load_target(kind: str, target: str, origin: str) -> type[Any]:
    module, _, name = target.partition(":")
    with _blaming(f"{origin} does not load"):
        cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, KINDS[kind])):
        base = KINDS[kind].__name__
        raise PluginError(f"{origin} is not a {kind}: {target} must derive from {base}.")
    if not attrs.has(cls):
        raise PluginError(f"{origin} has no options: {target} must be an attrs class.")
    if inspect.isabstract(cls):
        raise PluginError(f"{origin} is unfinished: {listed(sorted(cls.__abstractmethods__))}.")
    with _blaming(f"{origin} can't be described"):
        inspect.cleandoc(cls.__doc__ or "")
        describe_options(cls)
    return cls


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Tells whatever a plugin's code raises as its fault; an interrupt passes."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may even exit the process
        told = str(error).rstrip(".") if isinstance(error, OptionError) else describe_error(error)
        raise PluginError(f"{what}: {told}.") from error


def _slowness(plugin: Plugin) -> str | None:
    if plugin.seconds < _SLOW and not plugin.imports_torch:
        return None
    return (
        f"importing the plugin {plugin.name!r} took {plugin.seconds:.1f} s, for which every "
        f"command waits; it should import torch inside methods"
    )


def _install_line(technique: Technique, plugin: Plugin) -> str | None:
    if technique.extra is None or technique.extra not in plugin.missing:
        return None
    return f"pip install '{plugin.distribution}[{technique.extra}]'"
