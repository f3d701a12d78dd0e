"""Time and memory of calibration against a plain forward pass, on the CPU.

    python tests/benchmarks/ptq_time.py [--images 128] [--threads 2] [--rounds 3] [--options]

resnet18 on random images of 3x224x224, in batches of 16. Memory is the growth of the process's
peak (VmHWM) beyond that of a process that runs the same batches forward, each in a process of its
own.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from interleaved import medians_ms, print_versions
from torch import Tensor

from micronet.registry import create
from micronet.training.memory import keep_freed_memory

FORWARD = "forward"
OBSERVERS = ("minmax", "moving_average", "percentile", "mse", "entropy")
REFINED = {"equalize": True, "bias_correction": True, "rounding": "learned"}


def work(name: str, batches: list[Tensor]) -> Callable[[], None]:
    """A forward pass over all batches, or a calibration with an observer or with all options."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()

    @torch.no_grad()
    def forward() -> None:
        for batch in batches:
            model(batch)

    if name == FORWARD:
        return forward
    options = {"a_observer": name} if name in OBSERVERS else REFINED
    quantizer = create("quantizer", "iao", **options)
    prepared = quantizer.prepare(model, (batches[0][:2],))
    return lambda: quantizer.calibrate(prepared, batches)


def peak_mb() -> float:
    """The most memory that this process has held, in MB."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1e3


def growth_mb(name: str, arguments: argparse.Namespace) -> float:
    """How much the peak grows while a fresh process does the work."""
    command = [sys.executable, __file__, "--one", name]
    command += ["--images", str(arguments.images), "--threads", str(arguments.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", action="store_true", help="also equalize, correct and learn")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = torch.randn(arguments.images, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    batches = list(images.split(16))
    if arguments.one:
        run = work(arguments.one, batches)
        before = peak_mb()
        run()
        print(peak_mb() - before)
        return
    keep_freed_memory()
    print_versions("torchvision")
    names = [FORWARD, *OBSERVERS, *(["all options"] if arguments.options else [])]
    medians = medians_ms({name: work(name, batches) for name in names}, arguments.rounds)
    forward_mb = growth_mb(FORWARD, arguments)
    print("\n| calibration | ms | vs forward | peak beyond forward (MB) |\n|---|---|---|---|")
    for name, median in medians.items():
        beyond = growth_mb(name, arguments) - forward_mb
        print(f"| {name} | {median:.0f} | {median / medians[FORWARD]:.2f}x | {beyond:.0f} |")


if __name__ == "__main__":
    main()
