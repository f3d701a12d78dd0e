"""Takes a name that is taken."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_quantizers():
    return [Technique("iao", "Ours, but not really.", "micronet_broken.technique:Working")]
