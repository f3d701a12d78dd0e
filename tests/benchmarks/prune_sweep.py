"""Removes 30% of the channels of every classification model of torchvision; prints Markdown.

    python tests/benchmarks/prune_sweep.py --out sweep.json --page docs/reference/pruning.md

Beside micronet's pruner `gc` run torch-pruning's BNScalePruner and MagnitudePruner by its plain
recipe, with the classifier's last layer ignored. With --timm, micronet's pruner `normal` alone
takes sixty of timm's architectures instead. Weights and images are random. Each model and pruner
runs in a process of its own with one thread; one that fails or takes too long is a row with the
reason. What --out holds already is not run again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from sweep import Row, parser, row, sweep, table, versions, write

from micronet import registry

sys.path.insert(0, str(Path(__file__).parents[1]))

_PACKAGES = ("micronet", "torch-pruning", "torch", "torchvision", "onnx", "onnxruntime")
_TIMM_PACKAGES = ("micronet", "torch", "timm", "onnx", "onnxruntime")
_OURS, _PEERS = "micronet", ("BNScale", "Magnitude")
_FRACTION = 0.3
_NOTHING = 0.95
"""A pruner that leaves more of the parameters than this has done nothing."""

_HEADER = ["Model", "Image", "Params left", "FLOPs left", "Error", "Engine error"]
_HEADER += ["Layers left whole", "Time (s)"]


def main() -> None:
    options = parser(__doc__, limit=300)
    options.add_argument("--pruners", help="Only these, as in micronet,BNScale.")
    options.add_argument("--timm", action="store_true", help="timm's architectures instead.")
    arguments = options.parse_args()
    if arguments.timm:
        from timm_models import TIMM

        rows = sweep(list(TIMM), _examine_timm, arguments)
        write(_timm_table(rows), arguments.page, "timm")
        return
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    names = arguments.cases.split(",") if arguments.cases else names
    pruners = arguments.pruners.split(",") if arguments.pruners else (_OURS, *_PEERS)
    arguments.cases = None
    cases = [f"{name} {pruner}" for name in names for pruner in pruners]
    rows = sweep(cases, _examine, arguments)
    write(_table(names, rows), arguments.page, "torchvision")


def _examine_timm(name: str, directory: Path) -> Row:
    from any_model import settle
    from any_pruned_model import examine
    from timm_models import timm_model

    model, size = timm_model(name)
    pruner = registry.create("pruner", "normal", percent=_FRACTION)
    return row(size, examine(settle(model, size), size, pruner, directory, train=False))


def _examine(case: str, directory: Path) -> Row:
    from any_pruned_model import examine, model_with_statistics

    name, _, pruner = case.partition(" ")
    model, size = model_with_statistics(name)
    if pruner != _OURS:
        return {"size": size, **_by_torch_pruning(model, size, pruner)}
    gc = registry.create("pruner", "gc", percent=_FRACTION)
    return row(size, examine(model, size, gc, directory))


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


def _timm_table(rows: dict[str, Row]) -> str:
    worked = sum(map(_works, rows.values()))
    summary = f"{worked} of {len(rows)} work afterwards and have lost parameters."
    introduction = [summary, f"On {versions(_TIMM_PACKAGES)}."]
    return table(introduction, _HEADER, [[name, *_cells(row)] for name, row in rows.items()])


def _table(names: list[str], rows: dict[str, Row]) -> str:
    sums = [
        f"{pruner} {sum(_works(rows.get(f'{name} {pruner}')) for name in names)}"
        for pruner in (_OURS, *_PEERS)
    ]
    summary = f"Models that work afterwards and have lost parameters, of {len(names)}: "
    introduction = [f"{summary}{', '.join(sums)}.", f"On {versions(_PACKAGES)}."]
    header = [*_HEADER, *(f"{peer}: params left" for peer in _PEERS)]
    lines = [
        [
            name,
            *_cells(rows.get(f"{name} {_OURS}")),
            *(_peer(rows.get(f"{name} {peer}")) for peer in _PEERS),
        ]
        for name in names
    ]
    return table(introduction, header, lines)


def _peer(row: Row | None) -> str:
    if row is None:
        return "not run"
    if "failed" in row:
        return str(row["failed"])
    return f"{row['params']:.0%} ({row['seconds']:.1f} s)"


def _works(row: Row | None) -> bool:
    return row is not None and "failed" not in row and row["params"] < _NOTHING


def _cells(row: Row | None) -> list[str]:
    if row is None or "failed" in row:
        reason = "not run" if row is None else row["failed"]
        return ["", reason, "", "", "", "", ""]
    return [
        str(row["size"]),
        f"{row['params']:.0%}",
        f"{row['flops']:.0%}",
        "-" if row["error"] is None else f"{row['error']:.0e}",
        f"{row['engine_error']:.0e}",
        str(len(row["whole"])),
        f"{row['seconds']:.1f}",
    ]


if __name__ == "__main__":
    main()
