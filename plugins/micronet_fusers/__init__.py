"""Fusers: layers folded into their neighbours."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_fusers() -> list[Technique]:
    return [
        Technique(
            "bn",
            "Batch norms folded into the convolution or linear layer before them.",
            "micronet_fusers.bn:BatchNormFuser",
        ),
        Technique(
            "binary_bn",
            "Batch norms before a sign, turned into a bias of the layer before them.",
            "micronet_fusers.binary_bn:BinaryBatchNormFuser",
        ),
    ]
