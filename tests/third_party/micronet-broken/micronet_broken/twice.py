"""Names one technique twice."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_quantizers():
    one = Technique("doubled", "Once.", "micronet_broken.technique:Working")
    return [one, one]
