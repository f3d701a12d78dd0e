"""OpenVINO itself: reads graphs, compiles and runs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray
from openvino._offline_transformations import apply_moc_transformations

from micronet.errors import DeployError
from micronet.techniques import Runner

_DEVICE = "CPU"
_NUMBERED = re.compile(r"[A-Z]\w*_\d+")
"""Names that come from a counter of the process, as OpenVINO gives them."""
_COMPILED = 4
"""Shapes that get a graph of their own; a graph takes memory, and up to a second to compile."""


def read(model: onnx.ModelProto) -> openvino.Model:
    """An ONNX model in OpenVINO's terms, tidied up, with the same names each time.

    That is `openvino.convert_model`, but for its report on itself to a server.
    """
    core = openvino.Core()
    try:
        network = core.read_model(model.SerializeToString())
    except RuntimeError as error:
        raise DeployError(f"openvino can't read the exported graph: {error}") from error
    apply_moc_transformations(network, cf=True)
    for number, operation in enumerate(network.get_ordered_ops()):
        if _NUMBERED.fullmatch(operation.get_friendly_name()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    return network


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
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        return OpenVinoRunner(openvino.Core().read_model(path), options)
    except RuntimeError as error:
        raise DeployError(f"openvino can't load {path}: {error}") from error


class OpenVinoRunner(Runner):
    """Compiled graphs of one model: one for any batch size, and one for each that comes again.

    Knowing its shapes saves a graph about a tenth of its time where layers are small.
    """

    def __init__(self, model: openvino.Model, options: dict[str, Any]) -> None:
        self._model = model
        self._options = options
        self._seen: set[tuple[int, ...]] = set()
        self._requests: dict[tuple[int, ...], openvino.InferRequest] = {}
        self._any = self._compile()

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs: NDArray[np.float32] = self._request(batch.shape).infer([batch])[0]
        return outputs

    def _request(self, shape: tuple[int, ...]) -> openvino.InferRequest:
        if shape in self._requests:
            return self._requests[shape]
        if shape not in self._seen or len(self._requests) == _COMPILED:
            self._seen.add(shape)
            return self._any
        self._model.reshape(list(shape))
        self._requests[shape] = self._compile()
        return self._requests[shape]

    def _compile(self) -> openvino.InferRequest:
        compiled = openvino.Core().compile_model(self._model, _DEVICE, self._options)
        return compiled.create_infer_request()
