"""Takes every classification model of torchvision to an 8-bit engine; prints a Markdown table.

    python tests/benchmarks/torchvision_sweep.py --out sweep.json

Weights and images are random. Each model runs in a process of its own with one thread; one that
fails or takes too long is a row with the reason. Models that --out holds already are not run again.
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

_PACKAGES = ("micronet", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime")


def main() -> None:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", help="Only these, as in alexnet,vgg11.")
    parser.add_argument("--out", type=Path, help="JSON file that takes each row as it is done.")
    parser.add_argument("--limit", type=float, default=150, help="Seconds for one model.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_examined(arguments.one)))
        return
    wanted = arguments.models.split(",") if arguments.models else names
    rows: dict[str, Any] = {}
    if arguments.out and arguments.out.exists():
        rows = json.loads(arguments.out.read_text("utf-8"))
    for name in wanted:
        if name in rows:
            continue
        rows[name] = _row(name, arguments.limit)
        print(_line(name, rows[name]), file=sys.stderr, flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(_table({name: rows[name] for name in wanted}))


def _examined(name: str) -> dict[str, Any]:
    import attrs
    import torch
    from any_model import examine, torchvision_model

    from micronet import registry

    torch.set_num_threads(1)
    model, size = torchvision_model(name)
    quantizer = registry.create("quantizer", "iao")
    with tempfile.TemporaryDirectory() as directory:
        outcome = examine(model, size, quantizer, Path(directory))
    return {"size": size, **attrs.asdict(outcome)}


def _row(name: str, limit: float) -> dict[str, Any]:
    """What a process of its own found out about a model, or why it could not."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--one", name]
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
    worked = sum("failed" not in row for row in rows.values())
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    header = ["Model", "Image", "Quantized layers", "Layers in float", "Same class"]
    header += ["SQNR (dB)", "Own SQNR (dB)", "Time (s)"]
    lines = [
        f"{worked} of {len(rows)} models, on {machine}, {', '.join(versions)}.",
        "",
        f"| {' | '.join(header)} |",
        f"|{' --- |' * len(header)}",
        *(_line(name, row) for name, row in rows.items()),
    ]
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        reason = row["failed"].replace("|", "\\|")
        return f"| {name} | | | | | | {reason} | {row['seconds']:.0f} |"
    cells = [
        name,
        str(row["size"]),
        str(row["quantized"]) + ("" if row["traced"] else " (not traced)"),
        str(len(row["in_float"])),
        f"{row['agreement']:.0%}",
        f"{row['sqnr_db']:.0f}",
        f"{row['own_sqnr_db']:.0f}",
        f"{row['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
