"""Milliseconds of binary and ternary networks on OpenVINO, beside float32 and int8.

    python tests/benchmarks/binary_openvino.py [--threads 1] [--rounds 30] [--profile]

Four convolutions with batch norms and signs at 32x32 pixels and batch 1, then nin and nin_gc whole
at batch 64, whose first and last layers are in float or, with "int8 ends", 8-bit integers.
All variants of a row take turns. Weights and images are random, so no accuracy is measured; `same`
is the least fraction of a binary network's images with the simulation's class. --profile adds what
each operation of binary nin takes.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import openvino
import torch
from interleaved import medians_ms, print_versions
from prune_latency import with_random_gammas
from torch import Tensor, nn

from micronet.registry import create
from micronet.techniques import Artifact

CHAINS = [(channels, kernel) for kernel in (1, 3) for channels in (32, 64, 128, 256)]
VARIANTS = ("float32", "int8", "binary", "ternary")
INT8_ENDS = "binary, int8 ends"


def chain(channels: int, kernel: int) -> nn.Sequential:
    layers = [
        layer
        for _ in range(4)
        for layer in (
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
    ]
    return nn.Sequential(*layers)


def quantized(model: nn.Module, images: Tensor, variant: str) -> nn.Module:
    """A variant of a model, converted."""
    if variant == "float32":
        return create("fuser", "bn").fuse(model, (images,)).eval()
    if variant == "int8":
        quantizer = create("quantizer", "iao")
        prepared = quantizer.prepare(model, (images,))
        quantizer.calibrate(prepared, [images])
    else:
        whole = isinstance(model, nn.Sequential)  # a chain has no float layers at its ends
        ends = "quantized" if whole else "int8" if variant == INT8_ENDS else "float"
        weights = variant.partition(",")[0]
        quantizer = create("quantizer", "wbwtab", weights=weights, first_and_last=ends)
        prepared = quantizer.prepare(model, (images,))
        if quantizer.needs_data:
            quantizer.calibrate(prepared, [images])
        if whole:
            prepared = nn.Sequential(quantizer.activation_quantizer(), prepared)
    return quantizer.convert(create("fuser", "bn").fuse(prepared, (images,)))


def measure(model: nn.Module, images: Tensor, folder: Path, options) -> tuple[dict, dict, dict]:
    """Median milliseconds, artifacts and agreements with the simulation by variant."""
    backend = create("deploy_backend", "openvino")
    artifacts, calls, same = {}, {}, {}
    for variant in VARIANTS if isinstance(model, nn.Sequential) else (*VARIANTS, INT8_ENDS):
        converted = quantized(model, images[:2], variant)
        artifacts[variant] = backend.export(converted, (images[:2],), folder / variant)
        runner = backend.load(artifacts[variant], threads=options.threads)
        calls[variant] = lambda runner=runner: runner(images.numpy())
        with torch.no_grad():
            classes = converted(images).flatten(1).argmax(1).numpy()
        found = runner(images.numpy()).reshape(len(images), -1).argmax(1)
        same[variant] = float((found == classes).mean())
    return medians_ms(calls, options.rounds), artifacts, same


def print_profile(variant: str, artifact: Artifact, images: Tensor) -> None:
    """Milliseconds by kind of operation, on one thread."""
    network = openvino.Core().read_model(artifact.path)
    network.reshape(list(images.shape))
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    least: dict[str, float] = {}
    kinds = {}
    for _ in range(50):
        request.infer([images.numpy()])
        for each in request.get_profiling_info():
            ms = each.real_time.total_seconds() * 1e3
            least[each.node_name] = min(ms, least.get(each.node_name, ms))
            kinds[each.node_name] = f"{each.node_type}, {each.exec_type}"
    totals = Counter()
    for name, ms in least.items():
        totals[kinds[name]] += ms
    total = sum(totals.values())
    print(f"\nnin, {variant}, by operation, batch {len(images)}, one thread")
    print("\n| operation | ms | |\n|---|---|---|")
    for kind, ms in totals.most_common(8):
        print(f"| {kind} | {ms:.2f} | {ms / total:.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    print_versions("openvino")
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    print(f"\n{options.threads} thread(s): milliseconds, and how many times as fast as float32")
    columns = (*VARIANTS, INT8_ENDS, "binary to int8", "int8 ends to int8", "same")
    print(f"\n| | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    rows = {f"4 x {kernel}x{kernel}, {channels} channels": (
        lambda channels=channels, kernel=kernel: chain(channels, kernel),
        (1, channels, 32, 32),
    ) for channels, kernel in CHAINS}  # fmt: skip
    rows["nin, batch 64"] = (create("model", "nin").build, (64, 3, 32, 32))
    rows["nin_gc, batch 64"] = (create("model", "nin_gc").build, (64, 3, 32, 32))
    for title, (build, shape) in rows.items():
        images = torch.from_numpy(generator.standard_normal(shape, np.float32))
        with tempfile.TemporaryDirectory() as folder:
            model = with_random_gammas(build())
            ms, artifacts, same = measure(model, images, Path(folder), options)
            cells = [f"{ms[v]:.2f} ({ms['float32'] / ms[v]:.1f}x)" for v in ms]
            binary = [v for v in ms if v.startswith("binary")]
            ratios = [f"{ms['int8'] / ms[v]:.1f}x" for v in binary]
            if len(binary) == 1:
                cells.append("")
                ratios.append("")
            cells += [*ratios, f"{min(same[v] for v in binary):.0%}"]
            print(f"| {title} | {' | '.join(cells)} |", flush=True)
            if options.profile and title.startswith("nin,"):
                for variant in binary:
                    print_profile(variant, artifacts[variant], images[:8])


if __name__ == "__main__":
    main()
