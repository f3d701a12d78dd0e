"""The ONNX Runtime backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from micronet.errors import DeployError
from micronet.techniques import Artifact, DeployBackend, Runner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from torch import Tensor, nn

_FILE = "model.onnx"


@attrs.frozen(kw_only=True)
class OnnxRuntime(DeployBackend):
    """ONNX Runtime's CPU provider.

    8-bit models run on its integer kernels; other widths are computed exactly, without them.
    Unsigned activations with signed weights, one scale a channel, are its fast form on x86.
    """

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

        from micronet.export import export_onnx
        from micronet_onnxruntime.unsigned import make_activations_unsigned

        directory.mkdir(parents=True, exist_ok=True)
        export_onnx(model, example_inputs, directory / _FILE, dynamic=dynamic)
        make_activations_unsigned(directory / _FILE)
        artifact = Artifact(
            directory=directory,
            backend="onnxruntime",
            file=_FILE,
            input_shape=tuple(example_inputs[0].shape),
            engine=f"onnxruntime {onnxruntime.__version__}",
        )
        artifact.write_card()
        return artifact

    def load(self, artifact: Artifact, *, threads: int | None = None) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                str(artifact.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise DeployError(f"onnxruntime can't load {artifact.path}: {error}") from error
        return OnnxRuntimeRunner(session)


@attrs.frozen
class OnnxRuntimeRunner(Runner):
    """A session of ONNX Runtime."""

    session: InferenceSession

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        (name,) = (tensor.name for tensor in self.session.get_inputs())
        outputs: NDArray[np.float32] = self.session.run(None, {name: batch})[0]
        return outputs
