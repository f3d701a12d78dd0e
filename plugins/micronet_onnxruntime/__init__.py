"""ONNX Runtime: the engine that comes with micronet."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_deploy_backends() -> list[Technique]:
    return [
        Technique(
            "onnxruntime",
            "ONNX Runtime on the CPU, int8 from explicit Q/DQ nodes.",
            "micronet_onnxruntime.backend:OnnxRuntime",
        )
    ]
