"""Takes sixty of timm's architectures through calibration to an engine; prints a Markdown table.

    python tests/benchmarks/timm_sweep.py --out timm.json --page docs/reference/any-model.md

The quantizer is iao with 8 bits. Weights and images are random; batch norms know the statistics of
such images. With --torchvision, the segmentation models of torchvision follow, whose outputs are
dictionaries. Each model runs in a process of its own with one thread; one that fails or takes too
long is a row with the reason. What --out holds already is not run again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torchvision
from sweep import Row, parser, row, sweep, table, versions, write
from timm_models import TIMM, timm_model
from torch import nn

from micronet import registry

sys.path.insert(0, str(Path(__file__).parents[1]))

_SEGMENTATION = torchvision.models.list_models(module=torchvision.models.segmentation)
_PACKAGES = ("micronet", "torch", "timm", "torchvision", "onnx", "onnxscript", "onnxruntime")
_WORSE_DB = 1
"""Folding batch norms may cost so much of the simulation's signal to noise, not more."""

_EXACT_DB = 60
"""A float model with folded batch norms differs by rounding alone."""

_IMAGES = 8
"""In a batch. The signal to noise of two models is compared, which few images know too coarsely."""


def main() -> None:
    options = parser(__doc__, limit=300)
    options.add_argument("--torchvision", action="store_true", help="Segmentation models as well.")
    arguments = options.parse_args()
    cases = [*TIMM, *(_SEGMENTATION if arguments.torchvision else [])]
    write(_table(sweep(cases, _examine, arguments)), arguments.page, "timm")


def _examine(name: str, directory: Path) -> Row:
    from any_model import examine, settle

    model, size = timm_model(name) if name in TIMM else _segmentation_model(name)
    quantizer = registry.create("quantizer", "iao")
    model = settle(model, size)
    return row(size, examine(model, size, quantizer, directory, train=False, images=_IMAGES))


def _segmentation_model(name: str) -> tuple[nn.Module, int]:
    torch.manual_seed(0)
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, **auxiliary)
    return model, 64


def _table(rows: dict[str, Row]) -> str:
    worked = [row for row in rows.values() if "failed" not in row]
    whole = sum(row["traced"] for row in worked)
    worse = sum(_lost_by_folding(row) for row in worked)
    wrong = sum(_folded_wrongly(row) for row in worked)
    summary = (
        f"{len(worked)} of {len(rows)} reached the engine, {whole} of them quantized in a graph;"
        f" folding cost {worse} more than {_WORSE_DB} dB and is wrong in {wrong}."
        f" On {versions(_PACKAGES)}."
    )
    header = ["Model", "Image", "Quantized layers", "Layers in float", "Simulation (dB)"]
    header += ["Folded (dB)", "Engine (dB)", "Own (dB)", "Same class", "Own", "CPU (s)"]
    return table([summary], header, [_cells(name, row) for name, row in rows.items()])


def _lost_by_folding(row: Row) -> bool:
    return bool(row["fused_db"] < row["simulation_db"] - _WORSE_DB)


def _folded_wrongly(row: Row) -> bool:
    return bool(row["folded_float_db"] < _EXACT_DB)


def _about_folding(row: Row) -> str:
    if _folded_wrongly(row):
        return " (wrong)"
    return " (worse)" if _lost_by_folding(row) else ""


def _cells(name: str, row: Row) -> list[str]:
    if "failed" in row:
        return [name, "", row["failed"], *[""] * 8]
    return [
        name,
        str(row["size"]),
        str(row["quantized"]) + ("" if row["traced"] else " (at inputs)"),
        str(len(row["in_float"])),
        f"{row['simulation_db']:.1f}",
        f"{row['fused_db']:.1f}{_about_folding(row)}",
        f"{row['sqnr_db']:.0f}" + "".join(f" (without {name})" for name in row["missing"]),
        f"{row['own_sqnr_db']:.0f}",
        f"{row['agreement']:.0%}",
        f"{row['own_agreement']:.0%}",
        f"{row['seconds']:.0f}",
    ]


if __name__ == "__main__":
    main()
