"""TensorRT: engines for NVIDIA GPUs."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_deploy_backends() -> list[Technique]:
    return [
        Technique(
            "tensorrt",
            "TensorRT 10 and 11 on an NVIDIA GPU, int8 from explicit Q/DQ nodes, or float16.",
            "micronet_tensorrt.backend:TensorRT",
            extra="tensorrt",
        )
    ]
