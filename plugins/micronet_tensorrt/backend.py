"""The TensorRT backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from micronet.errors import DeployError, OptionError
from micronet.options import option
from micronet.techniques import Artifact, DeployBackend, Runner, Scheme, Signature

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from micronet_tensorrt.profile import Profile

_GRAPH, _FILE = "model.onnx", "model.engine"
_FLOAT_BITS = 32
_BITS = 8
_NAMED = 3
"""Faults that a refusal names before it counts the others."""


@attrs.frozen(kw_only=True)
class TensorRT(DeployBackend):
    """TensorRT 10 or 11 on the machine's NVIDIA GPU.

    The network is strongly typed: layers compute in what the graph says, int8 between explicit
    Q/DQ nodes, and float32 (never rounded to TF32) or float16 elsewhere. Quantized activations
    must be symmetric; `target: tensorrt` of a quantizer makes them so. Serving needs numpy,
    tensorrt and pycuda. The engine's file belongs to the version of TensorRT and the kind of GPU
    that built it; the graph beside it can be built elsewhere.
    """

    fast: ClassVar[Scheme | None] = Scheme(a_symmetric=True)

    precision: Literal["model", "int8", "fp32", "fp16"] = option(
        "model",
        doc="What it computes in: as the quantizer left the model; int8, which refuses a float "
        "model; or float without any quantization.",
    )
    max_batch: int = option(
        64, ge=1, doc="Largest batch of one call of the engine; larger ones run in pieces."
    )
    best_batch: int = option(1, ge=1, doc="Batch that its kernels are chosen for.")
    min_size: tuple[int, int] | None = option(
        None, doc="Smallest height and width, if those are dynamic; null for half the example's."
    )
    max_size: tuple[int, int] | None = option(
        None, doc="Largest height and width, if those are dynamic; null for twice the example's."
    )
    workspace_mb: int | None = option(
        None, ge=1, doc="MiB on the GPU that a layer may use to compute; null for all there is."
    )

    def __attrs_post_init__(self) -> None:
        if self.best_batch > self.max_batch:
            raise OptionError(
                f"best_batch must be at most max_batch, {self.max_batch}, got {self.best_batch}.",
                "best_batch",
            )
        for name in ("min_size", "max_size"):
            size = getattr(self, name)
            if size is not None and min(size) < 1:
                raise OptionError(f"{name} must hold numbers of at least 1, got {size}.", name)

    def unsuitable(self, scheme: Scheme) -> str | None:
        if self.precision in ("fp32", "fp16"):
            return None
        faults = []
        for name, bits, symmetric in (
            ("weights", scheme.w_bits, scheme.w_symmetric),
            ("activations", scheme.a_bits, scheme.a_symmetric),
        ):
            if bits == _FLOAT_BITS:
                continue
            if not symmetric:
                faults.append(f"asymmetric {name}")
            if bits > _BITS:
                faults.append(f"{bits:g}-bit {name}")
        if not faults:
            return None
        return (
            f"TensorRT computes on signed integers of 8 bits with zero point 0, not on "
            f"{' and '.join(faults)}; write quantize: {{quantizer: iao, target: tensorrt}}."
        )

    def available(self) -> str | None:
        from micronet_tensorrt.gpu import why_not_here

        return why_not_here()

    def write_graph(
        self,
        model: nn.Module,
        example_inputs: tuple[Any, ...],
        path: Path | str,
        *,
        dynamic: Sequence[str] = ("batch",),
    ) -> tuple[str, ...]:
        """Writes the graph that TensorRT builds engines of; needs neither TensorRT nor a GPU.

        Args:
            model: As for `export`.
            example_inputs: As for `export`.
            path: The ONNX file.
            dynamic: As for `export`.

        Returns:
            Remarks: layers that stay in float and why, and the line for trtexec.

        Raises:
            DeployError: TensorRT would refuse the graph; the message names layers and rules.
        """
        import onnx

        path = Path(path)
        graph, signature, remarks = self._graph(model, example_inputs, tuple(dynamic))
        onnx.save(graph, path)
        return (*remarks, self._trtexec(self._profiles(signature), path.name))

    def write(
        self,
        model: nn.Module,
        example_inputs: tuple[Any, ...],
        directory: Path,
        *,
        dynamic: tuple[str, ...],
    ) -> Artifact:
        from micronet_tensorrt.building import build
        from micronet_tensorrt.engine_file import EngineFile
        from micronet_tensorrt.gpu import platform

        graph, signature, remarks = self._graph(model, example_inputs, dynamic)
        profiles = self._profiles(signature)
        here = platform()
        serialized = graph.SerializeToString()
        plan = build(serialized, profiles, here, workspace_mb=self.workspace_mb)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / _GRAPH).write_bytes(serialized)
        EngineFile(here, profiles, plan).write(directory / _FILE)
        return Artifact(
            directory=directory,
            backend="tensorrt",
            file=_FILE,
            signature=signature,
            engine=f"TensorRT {here.tensorrt} on {here.gpu}",
            remarks=(*remarks, self._trtexec(profiles, _GRAPH)),
        )

    def start(self, artifact: Artifact, *, threads: int | None) -> Runner:  # noqa: ARG002
        from micronet_tensorrt.engine_file import EngineFile
        from micronet_tensorrt.gpu import platform
        from micronet_tensorrt.runner import TensorRTRunner

        file = EngineFile.read(artifact.path)
        self.refuse_elsewhere()
        reason = file.platform.why_not(platform())
        if reason is not None:
            raise DeployError(f"{artifact.path} can't be loaded: {reason}")
        return TensorRTRunner(artifact.signature, file)

    def _profiles(self, signature: Signature) -> dict[str, Profile]:
        """The shapes to build an engine for, by the names of the inputs."""
        from micronet_tensorrt.profile import Profile

        return {
            spec.name: Profile.around(
                spec,
                best_batch=self.best_batch,
                max_batch=self.max_batch,
                min_size=self.min_size,
                max_size=self.max_size,
            )
            for spec in signature.input_specs
        }

    def _graph(
        self, model: nn.Module, example_inputs: tuple[Any, ...], dynamic: tuple[str, ...]
    ) -> tuple[onnx.ModelProto, Signature, list[str]]:
        """The graph that TensorRT takes, its signature, and what there is to hear about it."""
        from micronet.deployment.export import export_graph
        from micronet.deployment.onnx_graph import Graph, read_signature
        from micronet.deployment.precision import at_precision
        from micronet_tensorrt.lint import for_tensorrt
        from micronet_tensorrt.rewriting import (
            dequantize_weights_without_kernel,
            remark_on_float_layers,
        )

        exported = export_graph(model, example_inputs, dynamic=dynamic)
        signature = read_signature(exported)
        self._profiles(signature)  # refuses an example that they leave out
        exported = at_precision(exported, self.precision)
        graph = Graph(exported)
        remarks = remark_on_float_layers(graph) + dequantize_weights_without_kernel(graph)
        graph.remove_unused_constants()
        found = for_tensorrt(exported)
        if found:
            more = f" And {len(found) - _NAMED} more." if len(found) > _NAMED else ""
            remedy = (
                " Quantize with {quantizer: iao, target: tensorrt}."
                if any(node.op_type == "QuantizeLinear" for node in graph.nodes)
                else ""
            )
            raise DeployError(
                f"TensorRT would refuse the model. {' '.join(found[:_NAMED])}{more}{remedy}"
            )
        return exported, signature, remarks

    def _trtexec(self, profiles: Mapping[str, Profile], graph: str) -> str:
        from micronet_tensorrt.profile import in_words

        options = [f"--onnx={graph}", "--stronglyTyped", f"--saveEngine={Path(graph).stem}.plan"]
        dynamic = {name: profile for name, profile in profiles.items() if profile.dynamic}
        if dynamic:
            for option, field in (("min", "smallest"), ("opt", "best"), ("max", "largest")):
                shapes = [f"{n}:{in_words(getattr(each, field))}" for n, each in dynamic.items()]
                options.append(f"--{option}Shapes={','.join(shapes)}")
        if self.workspace_mb is not None:
            options.append(f"--memPoolSize=workspace:{self.workspace_mb}")
        return f"The same on the command line, beside the graph: trtexec {' '.join(options)}"
