"""The ONNX Runtime backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from micronet.errors import listed
from micronet.options import option
from micronet.techniques import Artifact, DeployBackend, Runner, Scheme, Signature

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from torch import nn

_FILE = "model.onnx"
_NAMED = 3
"""Layers that a remark names before it counts the others."""


@attrs.frozen(kw_only=True)
class OnnxRuntime(DeployBackend):
    """ONNX Runtime's CPU provider.

    Layers whose weights and inputs have 8 bits or less run on its integer kernels, binary and
    ternary ones too; others are computed exactly, in float. Unsigned activations with signed
    weights, one scale a channel, are its fast form on x86.
    """

    needs: ClassVar[tuple[str, str] | None] = ("onnxruntime", "onnxruntime")
    fast: ClassVar[Scheme | None] = Scheme()

    precision: Literal["model", "int8", "fp32", "fp16", "auto"] = option(
        "model",
        doc="What the engine computes in: `model` as the model was quantized, `int8` the same but "
        "only for a quantized model, `fp32` or `fp16` in floats, `auto` in the faster one of "
        "`model` and `fp32`, as measured here.",
    )

    def is_fast(self, scheme: Scheme) -> bool:
        # Signed activations become unsigned ones in the file.
        return super().is_fast(attrs.evolve(scheme, a_symmetric=False))

    def write(
        self,
        model: nn.Module,
        example_inputs: tuple[Any, ...],
        directory: Path,
        *,
        dynamic: tuple[str, ...],
    ) -> Artifact:
        import onnx
        import onnxruntime

        from micronet.deployment.export import export_graph
        from micronet.deployment.onnx_graph import read_signature

        exported = export_graph(model, example_inputs, dynamic=dynamic)
        signature = read_signature(exported)
        graph, remarks = self._graph(exported, signature)
        directory.mkdir(parents=True, exist_ok=True)
        onnx.save(graph, directory / _FILE)
        return Artifact(
            directory=directory,
            backend="onnxruntime",
            file=_FILE,
            signature=signature,
            engine=f"onnxruntime {onnxruntime.__version__}",
            remarks=remarks,
        )

    def start(self, artifact: Artifact, *, threads: int | None) -> Runner:
        return OnnxRuntimeRunner(artifact.signature, _session(str(artifact.path), threads))

    def _graph(
        self, exported: onnx.ModelProto, signature: Signature
    ) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        """The graph at the precision asked for, and what there is to say about it."""
        from micronet.deployment.onnx_graph import Graph
        from micronet.deployment.precision import at_precision
        from micronet_onnxruntime.rewriting import rewrite

        if self.precision in ("fp32", "fp16"):
            return at_precision(exported, self.precision), ()
        floating = at_precision(exported, "fp32") if self.precision == "auto" else None
        graph = at_precision(exported, "int8" if self.precision == "int8" else "model")
        remarks = _in_float(rewrite(Graph(graph)))
        if floating is None or not _quantized(graph):
            return graph, remarks
        ms, float_ms = _measured([graph, floating], signature)
        figures = f"{float_ms:.3g} ms in fp32 and {ms:.3g} ms as quantized"
        if ms <= float_ms:
            return graph, (*remarks, f"Left as quantized: a call took {figures}.")
        remark = (
            f"Written in fp32: a call took {figures}. Its activations are not rounded, so it gives "
            f"other numbers than the simulation."
        )
        return floating, (remark,)


def _quantized(graph: onnx.ModelProto) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in graph.graph.node)


def _in_float(layers: dict[str, str]) -> tuple[str, ...]:
    """A sentence for each reason why layers are computed in float."""
    remarks = []
    for reason in dict.fromkeys(layers.values()):
        names = [name for name, why in layers.items() if why == reason]
        named = list(map(repr, names[:_NAMED]))
        if len(names) > _NAMED:
            named.append(f"{len(names) - _NAMED} more")
        remarks.append(
            f"onnxruntime computes {listed(named)} in float, for want of an integer kernel: "
            f"{reason}."
        )
    return tuple(remarks)


def _measured(graphs: list[onnx.ModelProto], signature: Signature) -> list[float]:
    """Milliseconds of a call of each graph."""
    from micronet.deployment.timing import time_calls

    noise = signature.noise()
    sessions = [_session(graph.SerializeToString(), None) for graph in graphs]
    runners = [OnnxRuntimeRunner(signature, session) for session in sessions]
    return time_calls([partial(runner.run, noise) for runner in runners], rounds=20).medians


def _session(model: str | bytes, threads: int | None) -> InferenceSession:
    """An engine of a file, or of its bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # Idle threads would spin in the way of whatever runs next, another engine included.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Kernels of processors without VNNI saturate in 16 bits; unsigned weights keep them from it.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        # Rounds float weights and biases that nobody asked it to round.
        disabled_optimizers=["WeightBiasQuantization"],
    )


class OnnxRuntimeRunner(Runner):
    """A session of ONNX Runtime."""

    def __init__(self, signature: Signature, session: InferenceSession) -> None:
        super().__init__(signature)
        self._session = session
        self._outputs = [spec.name for spec in signature.output_specs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        outputs: Sequence[NDArray[Any]] = self._session.run(self._outputs, dict(inputs))
        return outputs
