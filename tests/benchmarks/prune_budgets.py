"""Removes 30, 50 and 70% of the parameters or operations of many architectures; prints Markdown.

    python tests/benchmarks/prune_budgets.py --out budgets.json --page docs/reference/pruning.md

micronet's pruner `gc` takes sixty of timm's architectures, with --detectors those of torchvision
instead. Beside it run torch-pruning's BNScalePruner and MagnitudePruner, with global pruning and
the last layer ignored. They remove a fraction of the channels, so they are asked for the one that
leaves as many parameters where every layer loses it: 1 - sqrt(1 - budget). Weights and images are
random. Each model and pruner runs in a process of its own with one thread; one that fails or takes
too long is a row with the reason. What --out holds already is not run again.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep import Row, parser, sweep, table, versions, write

from micronet import registry
from micronet.errors import PruningError

sys.path.insert(0, str(Path(__file__).parents[1]))

_PACKAGES = ("micronet", "torch-pruning", "torch", "torchvision", "timm")
_TARGETS, _PEERS = ("params", "flops"), ("BNScale", "Magnitude")
_BUDGETS = (30, 50, 70)
_NEAR = 0.02
"""How far from its budget a result may be, as a fraction of the whole."""
_DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)


def main() -> None:
    options = parser(__doc__, limit=300)
    options.add_argument("--detectors", action="store_true", help="torchvision's detectors.")
    options.add_argument("--pruners", help="Only these, as in params,flops,BNScale,Magnitude.")
    arguments = options.parse_args()
    from timm_models import TIMM

    names = list(_DETECTORS if arguments.detectors else TIMM)
    names = arguments.cases.split(",") if arguments.cases else names
    pruners = arguments.pruners.split(",") if arguments.pruners else (*_TARGETS, *_PEERS)
    arguments.cases = None
    rows = sweep([f"{name} {pruner}" for name in names for pruner in pruners], _examine, arguments)
    write(
        _table(names, rows),
        arguments.page,
        "budget-detectors" if arguments.detectors else "budgets",
    )


def _examine(case: str, directory: Path) -> Row:
    name, _, pruner = case.partition(" ")
    model, inputs = _detector(name) if name in _DETECTORS else _classifier(name)
    went = _by_micronet if pruner in _TARGETS else _by_torch_pruning
    start = time.perf_counter()
    row = {
        str(budget): _attempt(lambda b=budget: went(model, inputs, pruner, b))
        for budget in _BUDGETS
    }
    return {**row, "seconds": time.perf_counter() - start}


def _attempt(prune: Callable[[], float]) -> float | str:
    """The fraction that went, or why none did."""
    try:
        return prune()
    except Exception as error:  # of torch-pruning's, any; they are cells of the table
        kind = "" if isinstance(error, PruningError) else f"{type(error).__name__}: "
        return f"{kind}{error}".splitlines()[0]


def _classifier(name: str) -> tuple[Any, tuple[Any, ...]]:
    import torch
    from any_model import settle
    from timm_models import timm_model

    model, size = timm_model(name)
    return settle(model, size), (torch.randn(2, 3, size, size),)


def _detector(name: str) -> tuple[Any, tuple[Any, ...]]:
    import torch
    from any_pruned_model import with_statistics
    from torchvision.models import detection

    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=10)
    return with_statistics(model).eval(), ([torch.rand(3, 320, 320)],)


def _by_micronet(model: Any, inputs: tuple[Any, ...], target: str, budget: int) -> float:
    from micronet.measure import gflops, params_m

    pruner = registry.create("pruner", "gc", percent=budget / 100, target=target)
    pruned = pruner.prune(model, inputs).model
    if target == "flops":
        return 1 - gflops(pruned, inputs) / gflops(model, inputs)
    return 1 - params_m(pruned) / params_m(model)


def _by_torch_pruning(model: Any, inputs: tuple[Any, ...], pruner: str, budget: int) -> float:
    import copy

    import torch_pruning

    from micronet.measure import params_m

    pruned = copy.deepcopy(model)
    last = [m for m in pruned.modules() if getattr(m, "out_features", 0) == 10]
    last += [m for m in pruned.modules() if getattr(m, "out_channels", 0) == 10]
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
    ratio = 1 - math.sqrt(1 - budget / 100)
    cls(
        pruned,
        inputs[0],
        importance=importance,
        pruning_ratio=ratio,
        global_pruning=True,
        ignored_layers=last,
    ).step()
    pruned(*inputs)
    return 1 - params_m(pruned) / params_m(model)


def _table(names: list[str], rows: dict[str, Row]) -> str:
    columns = [*_TARGETS, *_PEERS]
    header = ["Model", *(f"{column} {budget}%" for column in columns for budget in _BUDGETS)]
    went = {
        (name, column, budget): _went(rows.get(f"{name} {column}"), budget)
        for name in names
        for column in columns
        for budget in _BUDGETS
    }
    met = [
        f"{column} {sum(_near(went[name, column, b], b) for name in names for b in _BUDGETS)}"
        for column in columns
    ]
    introduction = [
        f"Budgets met within 2 points, of {len(names) * len(_BUDGETS)} each: {', '.join(met)}.",
        f"On {versions(_PACKAGES)}.",
    ]
    lines = [
        [name, *(_cell(went[name, column, b], b) for column in columns for b in _BUDGETS)]
        for name in names
    ]
    reasons = [
        f"- {name}, {target} {budget}%: {reason}"
        for (name, target, budget), reason in went.items()
        if target in _TARGETS and isinstance(reason, str)
    ]
    return "\n".join([table(introduction, header, lines), "", *reasons])


def _went(row: Row | None, budget: int) -> float | str:
    if row is None:
        return "not run"
    found: float | str = row.get("failed") or row[str(budget)]
    return found


def _near(went: float | str, budget: int) -> bool:
    return isinstance(went, float) and abs(went - budget / 100) <= _NEAR


def _cell(went: float | str, budget: int) -> str:
    """What went, in bold where it is not what was asked; a few words where nothing did."""
    if isinstance(went, float):
        return f"{went:.1%}" if _near(went, budget) else f"**{went:.1%}**"
    most = re.search(r"at most [\d.]+%", went)
    return most[0] if most else went.partition(":")[0] if "Error" in went else "no"


if __name__ == "__main__":
    main()
