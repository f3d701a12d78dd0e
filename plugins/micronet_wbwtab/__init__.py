"""wbwtab: weights binary or ternary, activations binary."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_quantizers() -> list[Technique]:
    return [
        Technique(
            "wbwtab",
            "Binary or ternary weights with or without binary activations, trained.",
            "micronet_wbwtab.quantizer:WbWtAb",
        )
    ]
