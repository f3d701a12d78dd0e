"""iao: integer-arithmetic-only quantization."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_quantizers() -> list[Technique]:
    return [
        Technique(
            "iao",
            "Affine integer weights and activations, 2 to 16 bits, trained or calibrated.",
            "micronet_iao.quantizer:IAO",
        )
    ]
