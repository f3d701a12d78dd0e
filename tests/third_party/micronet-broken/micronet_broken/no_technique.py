"""Returns something else than techniques."""

from micronet.hookspecs import hookimpl


@hookimpl
def micronet_quantizers():
    return ["lsq"]
