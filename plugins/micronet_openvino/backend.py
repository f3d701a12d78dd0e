"""The OpenVINO backend."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from micronet.errors import DeployError
from micronet.options import option
from micronet.techniques import Artifact, DeployBackend, Runner, Scheme

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

_FILE, _WEIGHTS = "model.xml", "model.bin"


@attrs.frozen(kw_only=True)
class OpenVino(DeployBackend):
    """OpenVINO's CPU plugin.

    8-bit models and narrower ones run on integers, wider ones in float32 with their roundings;
    binary and ternary convolutions of signs on bits where that is faster.
    Unsigned activations with signed weights, one scale a channel, are its fast form on x86.
    Float32 is computed as float32, where the engine by itself would take bfloat16.
    """

    fast: ClassVar[Scheme | None] = Scheme()

    precision: Literal["model", "int8", "fp32", "fp16"] = option(
        "model",
        doc="model: as the quantizer left it; int8: the same, and float models are refused; fp32 "
        "and fp16: without the quantization, in float32 or float16 (computed in float32 by "
        "processors that lack float16).",
    )

    def available(self) -> str | None:
        from importlib.util import find_spec

        if find_spec("openvino") is None:
            return "openvino is not installed; pip install 'micronet[openvino]'"
        return None

    def export(
        self,
        model: nn.Module,
        example_inputs: tuple[Tensor, ...],
        directory: Path,
        *,
        dynamic: tuple[str, ...] = ("batch",),
    ) -> Artifact:
        import onnx
        import openvino

        from micronet.example_inputs import check_example_inputs
        from micronet.export import export_onnx
        from micronet_openvino.choosing import network_of

        check_example_inputs(example_inputs)
        with TemporaryDirectory() as temporary:
            file = Path(temporary) / "model.onnx"
            export_onnx(model, example_inputs, file, dynamic=dynamic)
            exported = self._at_precision(onnx.load(file))
        images = example_inputs[0][:2].cpu().numpy()
        network, remarks = network_of(exported, images)
        directory.mkdir(parents=True, exist_ok=True)
        half = self.precision == "fp16"
        openvino.save_model(network, directory / _FILE, compress_to_fp16=half)
        artifact = Artifact(
            directory=directory,
            backend="openvino",
            file=_FILE,
            input_shape=tuple(example_inputs[0].shape),
            engine=f"openvino {openvino.__version__}",
            settings={"precision": "f16" if half else "f32"},
            more_files=(_WEIGHTS,),
            remarks=remarks,
        )
        artifact.write_card()
        return artifact

    def _at_precision(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        if self.precision in ("fp32", "fp16"):
            from micronet.precision import in_float

            return in_float(exported)
        if self.precision == "int8" and not any(
            node.op_type == "DequantizeLinear" for node in exported.graph.node
        ):
            raise DeployError(
                "precision: int8 needs a quantized model, and this one is float; quantize it "
                "before, or take precision: model."
            )
        return exported

    def load(self, artifact: Artifact, *, threads: int | None = None) -> Runner:
        from micronet_openvino.engine import load

        return load(artifact.path, precision=artifact.settings["precision"], threads=threads)
