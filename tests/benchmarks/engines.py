"""Our 8-bit models on ONNX Runtime against those of its own quantizer and against float ones.

    python tests/benchmarks/engines.py [--models nin,resnet18] [--threads 1,2] [--s8s8] [--auto]

The peer is onnxruntime's quantize_static: Q/DQ, unsigned activations, signed weights with a scale
for each channel, min-max; ours is iao with min-max too, calibrated on the same images. Engines take
turns in one process. resnet18, resnet50 and mobilenet_v2 have random weights and settled batch
norms, and are compared with the float model on noise; efficientnet_lite0 has its ImageNet weights,
and crops of two photographs; nin and nin_gc run on batches of 64 images of 32 pixels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import attrs
import numpy as np
import torch
import torchvision
from interleaved import print_versions
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

sys.path.insert(0, str(Path(__file__).parents[1]))

from any_model import agreement, sqnr_db
from real_weights import crops, efficientnet

from micronet.deployment.export import export_onnx
from micronet.deployment.timing import time_calls
from micronet.registry import create

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_lite0", "nin", "nin_gc")
_CALIBRATION, _COMPARED = 32, 64
"""Images."""

Engine = Callable[[np.ndarray], np.ndarray]


@attrs.frozen
class Case:
    """A float model with folded batch norms, in eval mode.

    Args:
        model: The model.
        calibration: Images to quantize it with.
        images: Images to compare outputs on.
        batch: Images in a timed call.
    """

    model: nn.Module
    calibration: Tensor
    images: Tensor
    batch: int


@attrs.frozen
class Variant:
    """A way to run a case.

    Args:
        path: The engine's file.
        load: Gives the engine for a number of threads.
        remarks: On the export.
    """

    path: Path
    load: Callable[[int], Engine]
    remarks: tuple[str, ...] = ()


def case(name: str) -> Case:
    """A model of `MODELS`, with its images."""
    torch.manual_seed(0)
    if name == "efficientnet_lite0":
        model, images, batch = efficientnet(), crops(_CALIBRATION + _COMPARED, 0), 1
    elif name.startswith("nin"):
        model, images, batch = create("model", name).build(), torch.randn(128, 3, 32, 32), 64
    else:
        model = torchvision.models.get_model(name, weights=None)
        images, batch = torch.randn(_CALIBRATION + _COMPARED, 3, 224, 224), 1
    calibration, images = images[:_CALIBRATION], images[_CALIBRATION:]
    if name != "efficientnet_lite0":
        _settle(model, calibration)
    folded = create("fuser", "bn").fuse(model.eval(), (images[:2],))
    return Case(folded.eval(), calibration, images, batch)


def _settle(model: nn.Module, images: Tensor) -> None:
    """Gives batch norms varied factors, and statistics that keep signals at their size."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = None
    with torch.no_grad():
        for batch in images.split(8):
            model.train()(batch)


def ours(case: Case, backend: str, directory: Path, **options: str) -> Variant:
    """iao with min-max, on a backend."""
    quantizer = create("quantizer", "iao", a_observer="minmax")
    example = (case.images[: case.batch],)
    prepared = quantizer.prepare(case.model, example)
    quantizer.calibrate(prepared, case.calibration.split(8))
    technique = create("deploy_backend", backend, **options)
    artifact = technique.export(quantizer.convert(prepared), example, directory)
    return Variant(
        artifact.path, lambda threads: technique.load(artifact, threads=threads), artifact.remarks
    )


def floating(case: Case, backend: str, directory: Path) -> Variant:
    """The float model on a backend."""
    technique = create("deploy_backend", backend)
    artifact = technique.export(case.model, (case.images[: case.batch],), directory)
    return Variant(artifact.path, lambda threads: technique.load(artifact, threads=threads))


def quantize_static(case: Case, activations: str, directory: Path) -> Variant:
    """onnxruntime's own quantizer, `activations` being QUInt8 or QInt8."""
    import onnxruntime
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(case.calibration.split(8))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch.numpy()}

    paths = [directory / name for name in ("float.onnx", "prepared.onnx", "quantized.onnx")]
    export_onnx(case.model, (case.images[:2],), paths[0])
    quantization.quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
    quantization.quantize_static(
        paths[1],
        paths[2],
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType[activations],
        weight_type=quantization.QuantType.QInt8,
    )

    def load(threads: int) -> Engine:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(
            str(paths[2]), options, providers=["CPUExecutionProvider"]
        )
        return lambda batch: session.run(None, {"input": batch})[0]

    return Variant(paths[2], load)


HEADER = (
    "| Model | Threads | Engine | ms | Speed / float | Speed / ours | Same class | SQNR (dB) | MB |"
)


def print_rows(name: str, case: Case, variants: Mapping[str, Variant], threads: int) -> list[str]:
    """Rows of the table: `variants` names the float engine first and ours last.

    Returns:
        What there is to say below it.
    """
    engines = {label: variant.load(threads) for label, variant in variants.items()}
    batch = np.ascontiguousarray(case.images[: case.batch].numpy())
    timing = time_calls([partial(engine, batch) for engine in engines.values()], rounds=30)
    with torch.no_grad():
        expected = torch.cat([case.model(images) for images in case.images.split(16)])
    for (label, engine), ms in zip(engines.items(), timing.medians, strict=True):
        found = np.concatenate([engine(images.numpy()) for images in case.images.split(case.batch)])
        outputs = torch.from_numpy(found)
        cells = [
            *(name, threads, label, f"{ms:.2f}"),
            *(f"{timing.medians[0] / ms:.2f}x", f"{timing.medians[-1] / ms:.2f}x"),
            *(f"{agreement(outputs, expected):.0%}", f"{sqnr_db(outputs, expected):.1f}"),
            f"{variants[label].path.stat().st_size / 1e6:.2f}",
        ]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    remarks = [
        f"{name}, {label}: {remark}"
        for label, variant in variants.items()
        for remark in variant.remarks
    ]
    if timing.disturbed:
        remarks.append(
            f"{name}, {threads} threads: the machine was busy, engines waited "
            f"{timing.waiting:.1f} times as long as they ran."
        )
    return remarks


def parsed(description: str | None) -> argparse.ArgumentParser:
    """The options that benchmarks of engines share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", default=",".join(MODELS), help="Only these.")
    parser.add_argument("--threads", default="1,2", help="Numbers of threads.")
    return parser


def main() -> None:
    parser = parsed(__doc__)
    parser.add_argument("--s8s8", action="store_true", help="quantize_static, signed, too")
    parser.add_argument("--auto", action="store_true", help="ours with precision: auto, too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print_versions("torchvision", "onnx", "onnxruntime")
    print(f"\n{HEADER}\n|{'---|' * (HEADER.count('|') - 1)}")
    remarks: list[str] = []
    for name in arguments.models.split(","):
        chosen = case(name)
        with tempfile.TemporaryDirectory() as folder:
            directories = iter(Path(folder) / str(number) for number in range(5))
            variants = {"float": floating(chosen, "onnxruntime", next(directories))}
            for label, activations in (("U8S8", "QUInt8"), ("S8S8", "QInt8")):
                if label == "U8S8" or arguments.s8s8:
                    directory = next(directories)
                    directory.mkdir()
                    variants[f"quantize_static {label}"] = quantize_static(
                        chosen, activations, directory
                    )
            if arguments.auto:
                variants["ours, auto"] = ours(
                    chosen, "onnxruntime", next(directories), precision="auto"
                )
            variants["ours"] = ours(chosen, "onnxruntime", next(directories))
            for threads in map(int, arguments.threads.split(",")):
                remarks += print_rows(name, chosen, variants, threads)
    print("", *dict.fromkeys(remarks), sep="\n")


if __name__ == "__main__":
    main()
