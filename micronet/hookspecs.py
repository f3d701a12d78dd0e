"""The doors through which plugins bring techniques: one pluggy hook for each kind.

A plugin is a module that the entry-point group `micronet.plugins.v1` names. It implements any of
these hooks with `micronet.hookspecs.hookimpl`; each returns the techniques of that kind.
"""

import pluggy

from micronet.techniques.technique import Technique

ENTRY_POINT_GROUP = "micronet.plugins.v1"

hookspec = pluggy.HookspecMarker("micronet")
hookimpl = pluggy.HookimplMarker("micronet")


@hookspec
def micronet_quantizers() -> list[Technique]:  # type: ignore[empty-body]
    """Techniques whose targets derive from `micronet.techniques.Quantizer`."""


@hookspec
def micronet_observers() -> list[Technique]:  # type: ignore[empty-body]
    """Techniques whose targets derive from `micronet.techniques.Observer`."""


@hookspec
def micronet_pruners() -> list[Technique]:  # type: ignore[empty-body]
    """Techniques whose targets derive from `micronet.techniques.Pruner`."""


@hookspec
def micronet_fusers() -> list[Technique]:  # type: ignore[empty-body]
    """Techniques whose targets derive from `micronet.techniques.Fuser`."""


@hookspec
def micronet_deploy_backends() -> list[Technique]:  # type: ignore[empty-body]
    """Techniques whose targets derive from `micronet.techniques.DeployBackend`."""


@hookspec
def micronet_models() -> list[Technique]:  # type: ignore[empty-body]
    """Techniques whose targets derive from `micronet.techniques.Model`."""


@hookspec
def micronet_datasets() -> list[Technique]:  # type: ignore[empty-body]
    """Techniques whose targets derive from `micronet.techniques.Dataset`."""


@hookspec
def micronet_tasks() -> list[Technique]:  # type: ignore[empty-body]
    """Techniques whose targets derive from `micronet.techniques.Task`."""
