"""8 bits on OpenVINO: micronet's file beside that of NNCF's post-training quantization.

    python tests/benchmarks/int8_openvino.py [--threads 1 2] [--rounds 40] [MODEL ...]

Both are calibrated on the same images and take turns, with the same settings and known shapes, at
batch 1, nin and nin_gc at batch 64. `same` is the fraction of 64 other images with the float
model's class, `SQNR` the energy of its outputs over that of the error in dB. efficientnet_lite0 has
its ImageNet weights and sees photographs; the others are random, weights and images, with batch
norms that have seen the images. Needs openvino and nncf.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nncf
import numpy as np
import openvino
import torch
import torchvision
from interleaved import medians_ms, print_versions
from prune_latency import with_random_gammas
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

sys.path.insert(0, str(Path(__file__).parents[1]))

from any_model import sqnr_db
from real_weights import crops, efficientnet

from micronet.registry import create

CALIBRATION, IMAGES = 32, 64


def random_images(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(CALIBRATION + IMAGES, 3, size, size, generator=generator)


def photographs() -> Tensor:
    return crops(CALIBRATION + IMAGES, 0)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], int]] = {
    **{
        name: (lambda name=name: torchvision.models.get_model(name), lambda: random_images(224), 1)
        for name in ("resnet18", "resnet50", "mobilenet_v2")
    },
    "efficientnet_lite0": (efficientnet, photographs, 1),
    **{
        name: (lambda name=name: create("model", name).build(), lambda: random_images(32), 64)
        for name in ("nin", "nin_gc")
    },
}


@torch.no_grad()
def with_statistics(model: nn.Module, images: Tensor) -> nn.Module:
    """A random model whose batch norms have random gammas and the statistics of images."""
    model = with_random_gammas(model).train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    model(images)
    return model.eval()


def by_nncf(model: nn.Module, calibration: Tensor, directory: Path) -> Path:
    network = openvino.convert_model(model, example_input=calibration[:1])
    images = nncf.Dataset([image[None].numpy() for image in calibration])
    quantized = nncf.quantize(network, images, subset_size=len(calibration))
    path = directory / "nncf.xml"
    openvino.save_model(quantized, path)
    return path


def by_micronet(model: nn.Module, calibration: Tensor, directory: Path) -> Path:
    quantizer = create("quantizer", "iao", target="openvino")
    prepared = quantizer.prepare(model, (calibration[:2],))
    quantizer.calibrate(prepared, calibration.split(8))
    converted = quantizer.convert(create("fuser", "bn").fuse(prepared, (calibration[:2],)))
    backend = create("deploy_backend", "openvino")
    return backend.export(converted, (calibration[:2],), directory / "micronet").path


def in_float(model: nn.Module, calibration: Tensor, directory: Path) -> Path:
    fused = create("fuser", "bn").fuse(model, (calibration[:2],))
    backend = create("deploy_backend", "openvino")
    return backend.export(fused, (calibration[:2],), directory / "float").path


def compiled(path: Path, shape: tuple[int, ...], threads: int) -> openvino.InferRequest:
    network = openvino.Core().read_model(path)
    network.reshape(list(shape))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    return openvino.Core().compile_model(network, "CPU", options).create_infer_request()


def outputs(path: Path, images: Tensor) -> Tensor:
    request = compiled(path, (1, *images.shape[1:]), 2)
    return torch.from_numpy(
        np.concatenate([request.infer([each[None].numpy()])[0] for each in images])
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    print_versions("torchvision", "openvino", "nncf")
    print(
        "\n| model | threads | float32 (ms) | NNCF (ms) | micronet (ms) | NNCF to micronet "
        "| same: NNCF | micronet | SQNR: NNCF | micronet | MB: NNCF | micronet |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in options.models:
        build, load, batch = MODELS[name]
        torch.manual_seed(0)
        calibration, images = load().split([CALIBRATION, IMAGES])
        model = build().eval()
        if name != "efficientnet_lite0":
            model = with_statistics(model, calibration)
        with tempfile.TemporaryDirectory() as folder:
            paths = {
                variant: make(model, calibration, Path(folder))
                for variant, make in (
                    ("float32", in_float), ("NNCF", by_nncf), ("micronet", by_micronet)
                )
            }  # fmt: skip
            results = {variant: outputs(path, images) for variant, path in paths.items()}
            sizes = {
                variant: (path.stat().st_size + path.with_suffix(".bin").stat().st_size) / 1e6
                for variant, path in paths.items()
            }
            for threads in options.threads:
                x = images[:batch].numpy()
                requests = {v: compiled(path, x.shape, threads) for v, path in paths.items()}
                calls = {v: lambda r=r, x=x: r.infer([x]) for v, r in requests.items()}
                ms = medians_ms(calls, options.rounds if batch == 1 else options.rounds // 4)
                cells = [f"{ms[variant]:.2f}" for variant in paths]
                cells.append(f"{ms['NNCF'] / ms['micronet']:.2f}x")
                exact = results["float32"]
                both = [results["NNCF"], results["micronet"]]
                cells += [f"{(r.argmax(1) == exact.argmax(1)).double().mean():.0%}" for r in both]
                cells += [f"{sqnr_db(r, exact):.1f}" for r in both]
                cells += [f"{sizes['NNCF']:.2f}", f"{sizes['micronet']:.2f}"]
                print(f"| {name} | {threads} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
