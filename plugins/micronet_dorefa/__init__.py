"""DoReFa-Net quantization."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_quantizers() -> list[Technique]:
    return [
        Technique(
            "dorefa",
            "Weights squashed by tanh and activations clamped, 2 to 16 bits, trained.",
            "micronet_dorefa.quantizer:DoReFa",
        )
    ]
