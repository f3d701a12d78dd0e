"""The OpenVINO backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from micronet.errors import WriteError
from micronet.options import option
from micronet.techniques import Artifact, DeployBackend, Runner, Scheme

if TYPE_CHECKING:
    from torch import nn

_FILE, _WEIGHTS = "model.xml", "model.bin"


@attrs.frozen(kw_only=True)
class OpenVino(DeployBackend):
    """OpenVINO's CPU plugin.

    Models of 8 bits or less run on its integer kernels, convolutions of signs with binary or
    ternary weights on bits where that is faster; others are computed exactly, in float. Unsigned
    activations with signed weights, one scale a channel, are its fast form on x86. Float means
    float32, where the engine by itself would take bfloat16.
    """

    needs: ClassVar[tuple[str, str] | None] = ("openvino", "'micronet[openvino]'")
    fast: ClassVar[Scheme | None] = Scheme()

    precision: Literal["model", "int8", "fp32", "fp16"] = option(
        "model",
        doc="What the engine computes in: `model` as the model was quantized, `int8` the same but "
        "only for a quantized model, `fp32` or `fp16` in floats; processors that lack float16 "
        "compute in float32.",
    )

    def is_fast(self, scheme: Scheme) -> bool:
        of_signs = scheme.a_bits == 1
        return of_signs or super().is_fast(scheme)

    def write(
        self,
        model: nn.Module,
        example_inputs: tuple[Any, ...],
        directory: Path,
        *,
        dynamic: tuple[str, ...],
    ) -> Artifact:
        import openvino

        from micronet.deployment.export import export_graph
        from micronet.deployment.flat_model import example_arrays
        from micronet.deployment.onnx_graph import read_signature
        from micronet.deployment.precision import at_precision
        from micronet_openvino.choosing import network_of
        from micronet_openvino.padding import write_out_circular_padding
        from micronet_openvino.roundings import keep_roundings

        half = self.precision == "fp16"
        exported = export_graph(model, example_inputs, dynamic=dynamic)
        signature = read_signature(exported)
        # OpenVINO itself makes float16 of float32.
        exported = at_precision(exported, "fp32" if half else self.precision)
        write_out_circular_padding(exported)
        keep_roundings(exported)
        example = example_arrays(signature, example_inputs, images=2)
        network, remarks = network_of(exported, signature, example)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            openvino.save_model(network, directory / _FILE, compress_to_fp16=half)
        except RuntimeError as error:  # of iostream, which knows no reason
            raise WriteError(
                f"Can't write {directory / _FILE}: OpenVINO gives no reason; the disk may be full."
            ) from error
        return Artifact(
            directory=directory,
            backend="openvino",
            file=_FILE,
            signature=signature,
            engine=f"openvino {openvino.__version__}",
            settings={"precision": "f16" if half else "f32"},
            more_files=(_WEIGHTS,),
            remarks=remarks,
        )

    def start(self, artifact: Artifact, *, threads: int | None) -> Runner:
        from micronet_openvino.engine import load

        return load(artifact, threads=threads)
