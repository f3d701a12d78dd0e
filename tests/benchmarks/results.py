"""What quantizing and pruning do to the accuracy, size and latency of networks; writes a page.

    python tests/benchmarks/results.py --runs runs/results --out docs/reference/results.md

Each row is a recipe that goes on from the float, or the sparsely trained, network of the same seed.
Runs are folders of `micronet run` in --runs: a stopped one goes on, a finished one is only read.
Latencies are measured when the page is written, so do that on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from functools import partial
from pathlib import Path

import attrs
import numpy as np
from interleaved import medians_ms

import micronet
from micronet import registry
from micronet.pipeline import Row
from micronet.recipe import (
    Calibrate,
    Deploy,
    Freeze,
    Fuse,
    Prune,
    Quantize,
    Step,
    Train,
    to_plain,
)
from micronet.techniques import Artifact

SEEDS = {"nin": 3, "nin_gc": 1}
"""Trainings of each network, with seeds from 0."""

DEPLOYED = 0
"""The seed whose networks also go to an engine."""

FLOAT = Train(epochs=8, lr=2e-3)


def wbwtab(weights: str, activations: str, *, epochs: int = 4) -> tuple[Step, ...]:
    quantize = Quantize("wbwtab", {"weights": weights, "activations": activations})
    if activations == "float":
        return (quantize, Train(epochs=6, lr=1e-3, batch_size=32), Fuse("bn"))
    train = Train(epochs=epochs, lr=2e-3, batch_size=32)
    return (quantize, train, Fuse("binary_bn"), Fuse("bn"))


def dorefa(bits: int, train: Train) -> tuple[Step, ...]:
    return (Quantize("dorefa", {"w_bits": bits, "a_bits": bits}), train, Fuse("bn"))


def iao(bits: int, *learn: Step) -> tuple[Step, ...]:
    return (Quantize("iao", {"w_bits": bits, "a_bits": bits}), *learn, Fuse("bn"))


ROWS: dict[str, tuple[Step, ...]] = {
    "wbwtab 1/32": wbwtab("binary", "float"),
    "wbwtab 1.5/32": wbwtab("ternary", "float"),
    "wbwtab 1/1": wbwtab("binary", "binary"),
    "wbwtab 1.5/1": wbwtab("ternary", "binary"),
    "dorefa 8/8": dorefa(8, Train(epochs=2, lr=5e-4)),
    "dorefa 4/4": dorefa(4, Train(epochs=3, lr=5e-4)),
    "dorefa 2/2": dorefa(2, Train(epochs=4, lr=1e-3, batch_size=32)),
    "iao 8/8 QAT": iao(8, Train(epochs=1, lr=1e-4)),
    "iao 8/8 PTQ": iao(8, Calibrate()),
    "iao 8/8 QAFT": iao(8, Calibrate(), Freeze(), Train(epochs=1, lr=1e-5)),
    "iao 4/4 QAT": iao(4, Train(epochs=2, lr=2e-4)),
}
"""The steps of each row, after the float network's."""

OWN: dict[str, dict[str, tuple[Step, ...]]] = {
    "nin_gc": {
        "wbwtab 1/1": wbwtab("binary", "binary", epochs=12),
        "wbwtab 1.5/1": wbwtab("ternary", "binary", epochs=12),
    }
}
"""Rows for which a network has steps of its own."""


SPARSE = {
    "nin": Train(epochs=4, lr=2e-3, sparsity=1e-4),
    "nin_gc": Train(epochs=4, lr=2e-3, sparsity=1e-3),
}
PRUNERS = {"nin": "normal", "nin_gc": "gc"}
FRACTIONS = (0.3, 0.5, 0.7)
FINE_TUNE = Train(epochs=3, lr=1e-3)
PRUNED_SEEDS = 3


def prune(model: str, fraction: float, *then: Step) -> tuple[Step, ...]:
    return (Prune(PRUNERS[model], {"percent": fraction}), FINE_TUNE, *then)


def pruned_rows(model: str) -> dict[str, tuple[Step, ...]]:
    """The steps of each row, after sparse training."""
    rows = {f"{PRUNERS[model]} {fraction:.0%}": prune(model, fraction) for fraction in FRACTIONS}
    if model == "nin_gc":
        few_values = wbwtab("ternary", "binary")
        rows["gc 30% + wbwtab 1.5/1"] = prune(model, FRACTIONS[0], *few_values)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="Folder of runs.")
    parser.add_argument("--out", type=Path, required=True, help="The page.")
    parser.add_argument("--models", default=",".join(SEEDS), help="Only these, as in nin,nin_gc.")
    parser.add_argument("--seeds", type=int, default=3, help="At most so many.")
    arguments = parser.parse_args()
    tables = {}
    for model in arguments.models.split(","):
        seeds = range(min(SEEDS[model], arguments.seeds))
        tables[model] = quantized_table([quantized(arguments.runs, model, seed) for seed in seeds])
    for model in arguments.models.split(","):
        seeds = range(min(PRUNED_SEEDS, arguments.seeds))
        found = [pruned(arguments.runs, model, seed) for seed in seeds]
        tables[f"{model}, pruned"] = pruned_table(found)
    arguments.out.write_text(page(tables, arguments.runs), "utf-8")


@attrs.frozen
class Measured:
    """A run's last row before deployment; for the deployed seed its engine's agreement and file."""

    row: Row
    parity: float | None = None
    artifact: Path | None = None


def measured(folder: Path, recipe: micronet.Recipe) -> Measured:
    *_, row = rows = micronet.run(recipe, folder).rows
    if row.artifact is None:
        return Measured(row)
    return Measured(rows[-2], row.parity, folder / row.artifact)


def quantized(folder: Path, model: str, seed: int) -> dict[str, Measured]:
    """The float network and all that comes of it, by their names in the table."""
    start = folder / f"{model}-{seed}-float"
    found = {model: measured(start, recipe(model, seed, (FLOAT,)))}
    for name, steps in {**ROWS, **OWN.get(model, {})}.items():
        found[name] = continued(start, model, seed, name, steps)
    return found


def pruned(folder: Path, model: str, seed: int) -> dict[str, Measured]:
    """The sparsely trained network and all that comes of it."""
    (first, steps), *others = pruned_rows(model).items()
    start = folder / f"{model}-{seed}-{_in_a_path(first)}"
    steps = (SPARSE[model], *steps, *_deployed(seed))
    result = measured(start, recipe(model, seed, steps))
    (sparse, *_) = micronet.run(recipe(model, seed, steps), start).rows
    whole = None if result.artifact is None else result.artifact / "float"
    found = {model: Measured(sparse, artifact=whole), first: result}
    for name, steps in others:
        found[name] = continued(start, model, seed, name, steps)
    return found


def continued(start: Path, model: str, seed: int, name: str, steps: tuple[Step, ...]) -> Measured:
    """What steps make of the network that the first step of the run `start` trained."""
    weights = str(start / "steps" / "01-train.safetensors")
    run = start.with_name(f"{model}-{seed}-{_in_a_path(name)}")
    return measured(run, recipe(model, seed, (*steps, *_deployed(seed)), weights))


def _deployed(seed: int) -> tuple[Step, ...]:
    return (Deploy(),) if seed == DEPLOYED else ()


def _in_a_path(name: str) -> str:
    return name.replace(" + ", "-").replace(" ", "-").replace("/", "-").replace("%", "")


def recipe(
    model: str, seed: int, steps: tuple[Step, ...], weights: str | None = None
) -> micronet.Recipe:
    return micronet.Recipe(model=model, data="digits", steps=steps, seed=seed, weights=weights)


def page(tables: dict[str, str], folder: Path) -> str:
    where = json.loads(next(folder.glob("*/environment.json")).read_text("utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    rows = dict(ROWS)
    for model, own in OWN.items():
        rows.update({f"{name}, {model}": steps for name, steps in own.items()})
    recipes = "\n".join(f"| {name} | {written(steps)} |" for name, steps in rows.items())
    return _PAGE.format(
        tables="\n".join(f"## {title}\n\n{text}" for title, text in tables.items()),
        recipes=recipes,
        float_recipe=written((FLOAT,)),
        sparse_recipes=" and ".join(f"{written((SPARSE[m],))} for {m}" for m in SPARSE),
        fine_tune=written((FINE_TUNE,)),
        deployed=DEPLOYED,
        versions=f"{versions}, Python {platform.python_version()}, {where['cpu']}",
    )


def quantized_table(found: list[dict[str, Measured]]) -> str:
    header = [*_COLUMNS, "Compression", "Loss", "Seeds", "Parity"]
    return markdown(header, [line(name, [each[name] for each in found]) for name in found[0]])


def pruned_table(found: list[dict[str, Measured]]) -> str:
    header = [*_COLUMNS, "Compression", "Loss", "Seeds", "Parity", "Latency (ms)", "Speed-up"]
    backend = registry.create("deploy_backend", "onnxruntime")
    calls = {}
    for name, result in found[DEPLOYED].items():
        artifact = Artifact.read(result.artifact)
        runner = backend.load(artifact, threads=1)
        image = np.zeros((1, *artifact.input_shape[1:]), np.float32)
        calls[name] = partial(runner, image)
    medians = medians_ms(calls, rounds=50)
    whole = medians[next(iter(calls))]
    lines = [
        [
            *line(name, [each[name] for each in found]),
            f"{medians[name]:.2f}",
            f"{whole / medians[name]:.2f}x",
        ]
        for name in found[0]
    ]
    return markdown(header, lines)


_COLUMNS = ["Type", "W bits", "A bits", "Acc", "GFLOPs", "Params (M)", "Size (MB)"]


def markdown(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def line(name: str, measured: list[Measured]) -> list[str]:
    rows = [each.row for each in measured]
    parities = [each.parity for each in measured if each.parity is not None]
    first = rows[0]
    return [
        name,
        *("FP32" if bits == 32 else f"{bits:g}" for bits in (first.w_bits, first.a_bits)),
        spread([row.accuracy for row in rows]),
        f"{first.gflops:.3g}",
        f"{first.params_m:.3g}",
        f"{first.size_mb:.3g}",
        "-" if first.compression is None else f"{first.compression:.2%}",
        "-" if first.loss is None else f"{statistics.mean(row.loss for row in rows):.2%}",
        str(len(rows)),
        f"{min(parities):.2%}" if parities else "-",
    ]


def spread(accuracies: list[float]) -> str:
    mean = f"{statistics.mean(accuracies):.2%}"
    return f"{mean} ± {statistics.stdev(accuracies):.2%}" if len(accuracies) > 1 else mean


def written(steps: tuple[Step, ...]) -> str:
    """Steps as a recipe has them, without most options that are left at their defaults."""
    return ", ".join(f"`{_step(step)}`" for step in steps)


def _step(step: Step) -> str:
    ((key, options),) = to_plain(recipe("nin", 0, (step,)))["steps"][0].items()
    defaults = {field.name: field.default for field in attrs.fields(type(step))}
    told = [
        f"{name}: {value}"
        for name, value in options.items()
        if defaults.get(name) != value or name in ("epochs", "lr")
    ]
    return f"{key}: {{{', '.join(told)}}}" if told else key


_PAGE = """\
# Results

What quantizing and pruning do to the accuracy, the file size and the latency of trained networks.
The data are scikit-learn's handwritten digits, resized to 3x32x32, of which 360 are held out: one
image is 0.28%. Numbers are measured, on files that were written; made by
`python tests/benchmarks/results.py --out docs/reference/results.md`.

- *Acc*: accuracy on the held-out images, the mean and standard deviation of as many trainings as
  *Seeds* says.
- *GFLOPs*: multiply-accumulates for one image.
- *Size*: of the file that `micronet pack` writes, weights at their true width; for the float
  network, of its state_dict.
- *Compression*: 1 - size / size of the float network.
- *Loss*: accuracy of the float network minus that of the row, mean over the seeds.
- *Parity*: fraction of the held-out images to which ONNX Runtime gives the same class as the
  simulation, for the network of seed {deployed}.
- *Latency*: median milliseconds for one image on ONNX Runtime with one thread, the networks of a
  table taking turns.

{tables}
## Recipes

The float network is trained first, with {float_recipe}.
Each row goes on from the float network of its seed, which its recipe names as `weights`. Options
that are not named have their defaults.

| Row | Steps |
| --- | --- |
{recipes}

The pruned tables start from networks trained sparsely instead: {sparse_recipes}.
Pruning, `normal` for nin and `gc` for nin_gc, is followed by {fine_tune}, and before a wbwtab row's
own steps.

For seed {deployed}, `deploy` follows. Versions: {versions}.
"""

if __name__ == "__main__":
    main()
