"""Milliseconds of pruned models on an engine; the variants take turns.

    python tests/benchmarks/prune_latency.py [--threads 1] [--rounds 100]

First, multiples of 16 channels against any number at the same fraction, for resnet18 and nin_gc.
Then resnet18 with half its channels and 8 bits by calibration, against the float model. Weights,
gammas and images are random, so no accuracy is measured. OpenVINO runs the same ONNX files where it
is installed.

With --nin-gc FILE, weights of a sparsely trained nin_gc, that network alone: 50 and 70% of its
channels against 50 and 70% of its operations.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from interleaved import medians_ms, print_ratios, print_versions
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from micronet.registry import create
from micronet.techniques import Artifact

PERCENT = 0.5


def with_random_gammas(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.2, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def in_onnxruntime(artifact: Artifact, images: Tensor, threads: int) -> Callable[[], object]:
    runner = create("deploy_backend", "onnxruntime").load(artifact, threads=threads)
    return lambda: runner(images.numpy())


def in_openvino(artifact: Artifact, images: Tensor, threads: int) -> Callable[[], object]:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(artifact.path, "CPU", options).create_infer_request()
    return lambda: request.infer([images.numpy()])


def engines() -> dict[str, Callable[[Artifact, Tensor, int], Callable[[], object]]]:
    try:
        import openvino  # noqa: F401
    except ImportError:
        return {"ONNX Runtime": in_onnxruntime}
    return {"ONNX Runtime": in_onnxruntime, "OpenVINO": in_openvino}


def compare(title: str, models: dict[str, nn.Module], images: Tensor, options) -> None:
    backend = create("deploy_backend", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        artifacts = {
            name: backend.export(model, (images,), Path(folder) / str(number))
            for number, (name, model) in enumerate(models.items())
        }
        for engine, load in engines().items():
            calls = {name: load(each, images, options.threads) for name, each in artifacts.items()}
            medians = medians_ms(calls, options.rounds)
            print_ratios(f"{title}, {engine}, {options.threads} thread(s)", medians, "whole")


def quantized(model: nn.Module, images: Tensor) -> nn.Module:
    quantizer = create("quantizer", "iao")
    prepared = quantizer.prepare(model, (images,))
    quantizer.calibrate(prepared, [images])
    return create("fuser", "bn").fuse(prepared, (images,)).eval()


def compare_budgets(options) -> None:
    net = create("model", "nin_gc").build()
    net.load_state_dict(load_file(options.nin_gc))
    images = torch.randn(64, 3, 32, 32)
    models = {"whole": net.eval()}
    for percent in (0.5, 0.7):
        for target in ("channels", "flops"):
            pruner = create("pruner", "gc", percent=percent, target=target)
            models[f"{percent:.0%} of {target}"] = pruner.prune(net, (images[:2],)).model
    compare("nin_gc, trained sparsely, batch 64", models, images, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--nin-gc", type=Path, help="A file of weights, as a run's train step has.")
    options = parser.parse_args()
    print_versions("torchvision", "onnxruntime", "openvino")
    if options.nin_gc:
        compare_budgets(options)
        return
    torch.manual_seed(0)
    large = torch.randn(1, 3, 224, 224)
    resnet = with_random_gammas(torchvision.models.resnet18())
    half = create("pruner", "normal", percent=PERCENT).prune(resnet, (large,)).model
    regular = create("pruner", "regular", percent=PERCENT, multiple=16)
    sixteens = regular.prune(resnet, (large,)).model
    models = {"whole": resnet, "normal": half, "regular 16": sixteens}
    compare("resnet18, half of the channels removed, batch 1", models, large, options)

    small = torch.randn(64, 3, 32, 32)
    net = with_random_gammas(create("model", "nin_gc").build())
    models = {
        "whole": net,
        "gc": create("pruner", "gc", percent=PERCENT).prune(net, (small[:2],)).model,
        "regular 16": regular.prune(net, (small[:2],)).model,
    }
    compare("nin_gc, half of the channels removed, batch 64", models, small, options)

    models = {
        "whole": resnet,
        "int8": quantized(resnet, large),
        "normal, int8": quantized(half, large),
        "regular 16, int8": quantized(sixteens, large),
    }
    compare("resnet18, half of the channels removed, then 8 bits, batch 1", models, large, options)


if __name__ == "__main__":
    main()
