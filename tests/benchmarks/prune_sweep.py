"""Removes 30% of the channels of every classification model of torchvision; prints Markdown.

    python tests/benchmarks/prune_sweep.py --out sweep.json

Beside micronet's pruner `gc` run torch-pruning's BNScalePruner and MagnitudePruner by its plain
recipe, with the classifier's last layer ignored. Weights and images are random. Each model and
pruner runs in a process of its own with one thread; one that fails or takes too long is told with
the reason. What --out holds already is not run again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

_PACKAGES = ("micronet", "torch-pruning", "torch", "torchvision", "onnx", "onnxruntime")
_PRUNERS = ("micronet", "BNScale", "Magnitude")
_FRACTION = 0.3
_NOTHING = 0.95
"""A pruner that leaves more of the parameters than this has done nothing."""


def main() -> None:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", help="Only these, as in alexnet,vgg11.")
    parser.add_argument("--pruners", help="Only these, as in micronet,BNScale.")
    parser.add_argument("--out", type=Path, help="JSON file that takes each row as it is done.")
    parser.add_argument("--limit", type=float, default=300, help="Seconds for one process.")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_examined(*arguments.one)))
        return
    wanted = arguments.models.split(",") if arguments.models else names
    rows: dict[str, Any] = {}
    if arguments.out and arguments.out.exists():
        rows = json.loads(arguments.out.read_text("utf-8"))
    for name in wanted:
        row = rows.setdefault(name, {})
        for pruner in arguments.pruners.split(",") if arguments.pruners else _PRUNERS:
            if pruner not in row:
                row[pruner] = _row(name, pruner, arguments.limit)
                print(f"{name} {pruner}: {row[pruner]}", file=sys.stderr, flush=True)
                if arguments.out:
                    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(_table({name: rows[name] for name in wanted}))


def _examined(name: str, pruner: str) -> dict[str, Any]:
    import attrs
    import torch
    from any_pruned_model import examine, model_with_statistics

    from micronet import registry

    torch.set_num_threads(1)
    model, size = model_with_statistics(name)
    if pruner != "micronet":
        return {"size": size, **_by_torch_pruning(model, size, pruner)}
    with tempfile.TemporaryDirectory() as directory:
        outcome = examine(
            model, size, registry.create("pruner", "gc", percent=_FRACTION), Path(directory)
        )
    return {"size": size, **attrs.asdict(outcome)}


def _by_torch_pruning(model: Any, size: int, pruner: str) -> dict[str, Any]:
    import torch
    import torch_pruning

    images = torch.randn(2, 3, size, size)
    before = sum(p.numel() for p in model.parameters())
    last = [m for m in model.modules() if getattr(m, "out_features", 0) == 1000]
    last += [m for m in model.modules() if getattr(m, "out_channels", 0) == 1000]
    kinds = {
        "BNScale": (
            torch_pruning.pruner.BNScalePruner,
            torch_pruning.importance.BNScaleImportance(),
        ),
        "Magnitude": (
            torch_pruning.pruner.MagnitudePruner,
            torch_pruning.importance.MagnitudeImportance(p=2),
        ),
    }
    cls, importance = kinds[pruner]
    start = time.perf_counter()
    model.eval()
    cls(model, images, importance=importance, pruning_ratio=_FRACTION, ignored_layers=last).step()
    seconds = time.perf_counter() - start
    model(images)
    return {"params": sum(p.numel() for p in model.parameters()) / before, "seconds": seconds}


def _row(name: str, pruner: str, limit: float) -> dict[str, Any]:
    """What a process of its own found out about a model, or why it could not."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--one", name, pruner]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=limit, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {limit:g} s", "seconds": limit}
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return row
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"failed": last, "seconds": time.perf_counter() - start}


def _table(rows: dict[str, dict[str, Any]]) -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    sums = [
        f"{pruner} {sum(_works(row.get(pruner)) for row in rows.values())}" for pruner in _PRUNERS
    ]
    header = ["Model", "Image", "Params left", "FLOPs left", "Error", "Engine error"]
    header += ["Layers left whole", "Time (s)", "BNScale: params left", "Magnitude: params left"]
    lines = [
        f"Models that work afterwards and have lost parameters, of {len(rows)}: {', '.join(sums)}.",
        f"On {machine}, {', '.join(versions)}.",
        "",
        f"| {' | '.join(header)} |",
        f"|{' --- |' * len(header)}",
        *(_line(name, row) for name, row in rows.items()),
    ]
    return "\n".join(lines)


def _peer(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not run"
    if "failed" in found:
        return str(found["failed"])
    return f"{found['params']:.0%} ({found['seconds']:.1f} s)"


def _works(found: dict[str, Any] | None) -> bool:
    return found is not None and "failed" not in found and found["params"] < _NOTHING


def _line(name: str, row: dict[str, Any]) -> str:
    ours = row.get("micronet")
    if ours is None:
        cells = ["", "not run", "", "", "", "", ""]
    elif "failed" in ours:
        cells = ["", ours["failed"], "", "", "", "", f"{ours['seconds']:.0f}"]
    else:
        cells = [
            str(ours["size"]),
            f"{ours['params']:.0%}",
            f"{ours['flops']:.0%}",
            "-" if ours["error"] is None else f"{ours['error']:.0e}",
            f"{ours['engine_error']:.0e}",
            str(len(ours["whole"])),
            f"{ours['seconds']:.1f}",
        ]
    cells += [_peer(row.get(pruner)) for pruner in _PRUNERS[1:]]
    return f"| {' | '.join([name, *(cell.replace('|', chr(92) + '|') for cell in cells)])} |"


if __name__ == "__main__":
    main()
