"""OpenVINO: integers, and binary and ternary convolutions as bits, on CPUs."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_deploy_backends() -> list[Technique]:
    return [
        Technique(
            "openvino",
            "OpenVINO on the CPU, int8 from explicit Q/DQ nodes, binary convolutions as bits.",
            "micronet_openvino.backend:OpenVino",
            extra="openvino",
        )
    ]
