"""Learned step size quantization."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_quantizers() -> list[Technique]:
    return [Technique("lsq", "Step sizes learned with the weights.", "micronet_lsq.quantizer:LSQ")]
