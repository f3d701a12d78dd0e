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
        ),
        Technique(
            "regular",
            "The same, leaving a multiple of so many channels in each layer.",
            "micronet_pruners.regular:RegularPruner",
        ),
        Technique(
            "gc",
            "The same for group convolutions: each of their groups loses as many channels.",
            "micronet_pruners.gc:GCPruner",
        ),
    ]
