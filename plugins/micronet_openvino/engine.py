"""OpenVINO itself: reads graphs, compiles and runs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray
from openvino import opset1
from openvino._offline_transformations import apply_moc_transformations
from openvino.frontend import NodeContext
from openvino.frontend.onnx import ConversionExtension

from micronet.errors import DeployError
from micronet.techniques import Runner
from micronet_openvino.binary import DOMAIN

_DEVICE = "CPU"
_NUMBERED = re.compile(r"[A-Z]\w*_\d+")
"""Names that come from a counter of the process, as OpenVINO gives them."""
_PART = 8
_COMPILED = 4
"""Shapes that get a graph of their own; a graph takes memory, and up to a second to compile."""


def read(model: onnx.ModelProto) -> openvino.Model:
    """An ONNX model in OpenVINO's terms, tidied up, with the same names each time.

    That is `openvino.convert_model`, but for its report on itself to a server.
    """
    core = openvino.Core()
    core.add_extension(ConversionExtension("BinaryConvolution", DOMAIN, _binary_convolution))
    try:
        network = core.read_model(model.SerializeToString())
    except RuntimeError as error:
        raise DeployError(f"openvino can't read the exported graph: {error}") from error
    apply_moc_transformations(network, cf=True)
    for number, operation in enumerate(network.get_ordered_ops()):
        if _NUMBERED.fullmatch(operation.get_friendly_name()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    return network


def _binary_convolution(node: NodeContext) -> list[openvino.Output]:
    """OpenVINO's own operation for `binary.DOMAIN`'s."""
    weights = openvino.Tensor(openvino.Type.u1, node.get_attribute("shape"))
    weights.data[:] = node.get_input(1).get_node().data
    pads = node.get_attribute("pads")
    convolution = opset1.binary_convolution(
        node.get_input(0),
        openvino.op.Constant(weights),
        node.get_attribute("strides"),
        pads[:2],
        pads[2:],
        node.get_attribute("dilations"),
        "xnor-popcount",
        0.0,
    )
    return [convolution.output(0)]


def load(path: Path, *, precision: str, threads: int | None) -> OpenVinoRunner:
    """A model's file, ready to run.

    Args:
        path: The XML file; the weights lie beside it.
        precision: What float layers compute in, "f32" or "f16".
        threads: Threads it may use; `None` lets the engine choose.

    Raises:
        DeployError: There is no model in it that the engine can run.
    """
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        # By itself it rounds what a linear layer with integer weights reads in float.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        return OpenVinoRunner(openvino.Core().read_model(path), options)
    except RuntimeError as error:
        raise DeployError(f"openvino can't load {path}: {error}") from error


class OpenVinoRunner(Runner):
    """Graphs of one model, compiled for the shapes that come.

    A graph that knows its shapes saves about a tenth of its time where layers are small, so there
    is one for each shape that comes again, beside the one for any. On bits the engine takes no
    other: batches are cut into eights and ones.
    """

    def __init__(self, model: openvino.Model, options: dict[str, Any]) -> None:
        self._model = model
        self._options = options
        self._seen: set[tuple[int, ...]] = set()
        self._requests: dict[tuple[int, ...], openvino.InferRequest] = {}
        self._on_bits = any(
            operation.get_type_name() == "BinaryConvolution" for operation in model.get_ops()
        )
        self._any = None if self._on_bits else self._compile()

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = _parts(batch) if self._on_bits else [batch]
        outputs = [self._request(part.shape).infer([part])[0] for part in parts]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _request(self, shape: tuple[int, ...]) -> openvino.InferRequest:
        if shape in self._requests:
            return self._requests[shape]
        if self._any is not None and (shape not in self._seen or len(self._requests) == _COMPILED):
            self._seen.add(shape)
            return self._any
        self._model.reshape(list(shape))
        self._requests[shape] = self._compile()
        return self._requests[shape]

    def _compile(self) -> openvino.InferRequest:
        compiled = openvino.Core().compile_model(self._model, _DEVICE, self._options)
        return compiled.create_infer_request()


def _parts(batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    cut = len(batch) - len(batch) % _PART
    return [batch[i : i + _PART] for i in range(0, cut, _PART)] + [
        batch[i : i + 1] for i in range(cut, len(batch))
    ]
