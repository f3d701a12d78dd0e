"""Takes every classification model of torchvision to a quantized engine; prints a Markdown table.

    python tests/benchmarks/torchvision_sweep.py --out sweep.json --page docs/reference/any-model.md

The quantizer is iao with 8 bits; a few models also go through the others. Weights and images are
random. Each model runs in a process of its own with one thread; one that fails or takes too long is
a row with the reason. What --out holds already is not run again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import attrs
import torch
import torchvision

from micronet import registry

sys.path.insert(0, str(Path(__file__).parents[1]))

_MARK = "<!-- table -->\n"
"""In the page, the line after which the table stands."""

_IAO = "iao"
_OTHERS = ("dorefa", "wbwtab")
_WITH_OTHERS = ("mobilenet_v2", "resnet18", "shufflenet_v2_x1_0")
_FORK = multiprocessing.get_context("fork")
_PACKAGES = ("micronet", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime")


def main() -> None:
    cases = torchvision.models.list_models(module=torchvision.models)
    cases += [f"{name} {quantizer}" for quantizer in _OTHERS for name in _WITH_OTHERS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", help="Only these, as in 'alexnet,resnet18 dorefa'.")
    parser.add_argument("--out", type=Path, help="JSON file that takes each row as it is done.")
    parser.add_argument(
        "--page", type=Path, help=f"Page that takes the table after {_MARK.strip()}."
    )
    parser.add_argument("--limit", type=float, default=900, help="Seconds for one model.")
    arguments = parser.parse_args()
    wanted = arguments.models.split(",") if arguments.models else cases
    rows: dict[str, Any] = {}
    if arguments.out and arguments.out.exists():
        rows = json.loads(arguments.out.read_text("utf-8"))
    missing = [name for name in wanted if name not in rows]
    if missing:
        _warm_up()
    for name in missing:
        rows[name] = _row(name, arguments.limit)
        print(_line(name, rows[name]), file=sys.stderr, flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    table = _table({name: rows[name] for name in wanted})
    if arguments.page:
        text, mark, _ = arguments.page.read_text("utf-8").partition(_MARK)
        arguments.page.write_text(f"{text}{mark}\n{table}\n", "utf-8")
    else:
        print(table)


def _warm_up() -> None:
    """Loads what each model's process would otherwise load anew."""
    from any_model import examine
    from torch import nn

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        model = nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten())
        examine(model, 8, registry.create("quantizer", _IAO), Path(directory))


def _row(case: str, limit: float) -> dict[str, Any]:
    """What a process of its own found out about a model, or why it could not."""
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_examine, args=(case, sender))
    process.start()
    sender.close()
    if not receiver.poll(limit):
        process.kill()
        return {"failed": f"took more than {limit:g} s"}
    try:
        row: dict[str, Any] = receiver.recv()
    except EOFError:
        row = {}
    process.join()
    return row or {"failed": f"exit status {process.exitcode}"}


def _examine(case: str, sender: Any) -> None:
    from any_model import examine, torchvision_model

    name, _, quantizer = case.partition(" ")
    try:
        model, size = torchvision_model(name)
        with tempfile.TemporaryDirectory() as directory:
            technique = registry.create("quantizer", quantizer or _IAO)
            outcome = examine(model, size, technique, Path(directory))
        sender.send({"size": size, **attrs.asdict(outcome)})
    except Exception as error:  # whatever it is, it is the model's row
        sender.send({"failed": f"{type(error).__name__}: {error}".splitlines()[0]})


def _table(rows: dict[str, dict[str, Any]]) -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    worked = sum("failed" not in row for row in rows.values())
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    header = ["Model", "Image", "Quantized layers", "Layers in float", "Same class", "Own"]
    header += ["SQNR (dB)", "Own (dB)", "CPU (s)"]
    lines = [
        f"{worked} of {len(rows)} worked, on {machine}, {', '.join(versions)}.",
        "",
        f"| {' | '.join(header)} |",
        f"|{' --- |' * len(header)}",
        *(_line(name, row) for name, row in rows.items()),
    ]
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        reason = row["failed"].replace("|", "\\|")
        return f"| {name} | | | | | {reason} | | | |"
    cells = [
        name,
        str(row["size"]),
        str(row["quantized"]) + ("" if row["traced"] else " (at inputs)"),
        str(len(row["in_float"])),
        f"{row['agreement']:.0%}",
        f"{row['own_agreement']:.0%}",
        f"{row['sqnr_db']:.0f}",
        f"{row['own_sqnr_db']:.0f}",
        f"{row['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
