"""OpenVINO itself: reads graphs, compiles and runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import openvino
from numpy.typing import NDArray
from openvino import opset1
from openvino._offline_transformations import apply_moc_transformations
from openvino.frontend import NodeContext
from openvino.frontend.onnx import ConversionExtension

from micronet.deployment.batches import batch_of, run_in_pieces
from micronet.errors import DeployError
from micronet.techniques import Artifact, Runner, Signature
from micronet_openvino.binary import DOMAIN
from micronet_openvino.core import core
from micronet_openvino.reductions import keep_reductions
from micronet_openvino.saturation import kernels_saturate

_DEVICE = "CPU"
_NUMBERED = re.compile(r"[A-Z]\w*_\d+")
"""Names that come from a counter of the process, as OpenVINO gives them."""
_PART = 8
_COMPILED = 4
"""Shapes that get a graph of their own; a graph takes memory, and up to a second to compile."""

_Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Of all inputs, by name."""


def read(model: onnx.ModelProto) -> openvino.Model:
    """An ONNX model in OpenVINO's terms, tidied up, with the same names each time.

    That is `openvino.convert_model`, but for its report on itself to a server.
    """
    reader = openvino.Core()
    reader.add_extension(ConversionExtension("BinaryConvolution", DOMAIN, _binary_convolution))
    try:
        network = reader.read_model(model.SerializeToString())
    except RuntimeError as error:
        raise DeployError(f"openvino can't read the exported graph: {error}") from error
    apply_moc_transformations(network, cf=True)
    keep_reductions(network)
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


def load(artifact: Artifact, *, threads: int | None) -> OpenVinoRunner:
    """An artifact's engine, ready to run.

    Args:
        artifact: Its file is the XML; the weights lie beside it.
        threads: Threads it may use; `None` lets the engine choose.
    """
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        # What float layers compute in, "f32" or "f16".
        "INFERENCE_PRECISION_HINT": artifact.settings["precision"],
        # By itself it rounds what a linear layer with integer weights reads in float.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if kernels_saturate():
        options["LP_TRANSFORMS_MODE"] = "NO"  # the same numbers, computed in float
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return OpenVinoRunner(artifact.signature, core().read_model(artifact.path), options)


class OpenVinoRunner(Runner):
    """Graphs of one model, compiled for the shapes that come.

    A graph that knows its shapes saves about a tenth of its time where layers are small, so there
    is one for each shape that comes again, beside the one for any. On bits the engine takes no
    other: batches are cut into eights and ones, if they can be cut.
    """

    def __init__(
        self, signature: Signature, model: openvino.Model, options: dict[str, Any]
    ) -> None:
        super().__init__(signature)
        self._model = model
        self._options = options
        self._seen: set[_Shapes] = set()
        self._requests: dict[_Shapes, openvino.InferRequest] = {}
        self._on_bits = any(
            operation.get_type_name() == "BinaryConvolution" for operation in model.get_ops()
        )
        self._taken = {name for port in model.inputs for name in port.get_names()}
        self._any = None if self._on_bits else compiled(model, options)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        count = batch_of(self.signature, inputs)
        if count is None or not self._on_bits or not self.signature.can_be_cut:
            return self._run(inputs)
        return run_in_pieces(self._run, self.signature, inputs, _pieces(count))

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        # An input that the model does not use is none of the engine's.
        taken = {name: array for name, array in inputs.items() if name in self._taken}
        shapes = tuple((name, array.shape) for name, array in taken.items())
        return list(self._request(shapes).infer(taken).to_tuple())

    def _request(self, shapes: _Shapes) -> openvino.InferRequest:
        if shapes in self._requests:
            return self._requests[shapes]
        if self._any is not None and (shapes not in self._seen or len(self._requests) == _COMPILED):
            self._seen.add(shapes)
            return self._any
        self._model.reshape({name: list(shape) for name, shape in shapes})
        self._requests[shapes] = compiled(self._model, self._options)
        return self._requests[shapes]


def compiled(model: openvino.Model, options: dict[str, Any]) -> openvino.InferRequest:
    """A model made ready for the CPU."""
    return core().compile_model(model, _DEVICE, options).create_infer_request()


def _pieces(count: int) -> list[tuple[int, int]]:
    whole = count - count % _PART
    eights = [(start, start + _PART) for start in range(0, whole, _PART)]
    return [*eights, *((start, start + 1) for start in range(whole, count))] or [(0, 0)]
