"""Pruners: channels removed, physically."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_pruners() -> list[Technique]:
    return [
        Technique(
            "normal",
            "The channels with the smallest batch-norm gammas of the whole model.",
            "micronet_pruners.normal:NormalPruner",
        )
    ]
