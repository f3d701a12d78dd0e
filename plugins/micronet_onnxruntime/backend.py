"""The ONNX Runtime backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import attrs

from micronet.errors import DeployError
from micronet.techniques import Artifact, DeployBackend, Runner, Scheme

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from torch import Tensor, nn

_FILE = "model.onnx"
_BIASES = "WeightBiasQuantization"
"""The optimizer that makes biases int32 for the integer kernels. Where those do not apply, it
gains nothing and rounds biases to steps that may be coarse, or overflow, at other widths."""


@attrs.frozen(kw_only=True)
class OnnxRuntime(DeployBackend):
    """ONNX Runtime's CPU provider.

    8-bit models run on its integer kernels; other widths are computed exactly, without them.
    Unsigned activations with signed weights, one scale a channel, are its fast form on x86.
    """

    fast: ClassVar[Scheme | None] = Scheme()

    def available(self) -> str | None:
        from importlib.util import find_spec

        if find_spec("onnxruntime") is None:
            return "onnxruntime is not installed; pip install onnxruntime"
        return None

    def export(
        self,
        model: nn.Module,
        example_inputs: tuple[Tensor, ...],
        directory: Path,
        *,
        dynamic: tuple[str, ...] = ("batch",),
    ) -> Artifact:
        import onnxruntime

        from micronet.example_inputs import check_example_inputs
        from micronet.export import export_onnx

        check_example_inputs(example_inputs)
        directory.mkdir(parents=True, exist_ok=True)
        export_onnx(model, example_inputs, directory / _FILE, dynamic=dynamic)
        integer_kernels = _rewrite(directory / _FILE)
        artifact = Artifact(
            directory=directory,
            backend="onnxruntime",
            file=_FILE,
            input_shape=tuple(example_inputs[0].shape),
            engine=f"onnxruntime {onnxruntime.__version__}",
            settings={} if integer_kernels else {"disabled_optimizers": _BIASES},
        )
        artifact.write_card()
        return artifact

    def load(self, artifact: Artifact, *, threads: int | None = None) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        # Idle threads would spin in the way of whatever runs next, another engine included.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = onnxruntime.InferenceSession(
                str(artifact.path),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=artifact.settings.get("disabled_optimizers", "").split(),
            )
        except Exception as error:  # its exceptions share no base class
            raise DeployError(f"onnxruntime can't load {artifact.path}: {error}") from error
        return OnnxRuntimeRunner(session)


def _rewrite(path: Path) -> bool:
    """Gives a file the form that the engine likes; says whether it will run it on integers."""
    import onnx

    from micronet.onnx_graph import Graph
    from micronet_onnxruntime import rewriting

    model = onnx.load(path)
    graph = Graph(model)
    rewriting.make_activations_unsigned(graph)
    rewriting.make_biases_representable(graph)
    graph.remove_unused_constants()
    onnx.save(model, path)
    return rewriting.has_integer_kernels(graph)


@attrs.frozen
class OnnxRuntimeRunner(Runner):
    """A session of ONNX Runtime."""

    session: InferenceSession

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        (name,) = (tensor.name for tensor in self.session.get_inputs())
        outputs: NDArray[np.float32] = self.session.run(None, {name: batch})[0]
        return outputs
