"""Needs a package that is not there."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_quantizers():
    return [Technique("on_gpu", "Needs it.", "micronet_broken.technique:Working", extra="gpu")]
