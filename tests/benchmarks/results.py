"""What the quantizers do to the accuracy and size of trained networks; writes a page.

    python tests/benchmarks/results.py --runs runs/results --out docs/reference/results.md

Each row is a recipe that goes on from the float network of the same seed. Runs are folders of
`micronet run` in --runs: a stopped one goes on, a finished one is only read. The page is written
again after each run, with what is finished by then.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path

import attrs

import micronet
from micronet.pipeline import Row
from micronet.recipe import Calibrate, Deploy, Freeze, Fuse, Quantize, Step, Train, to_plain

SEEDS = {"nin": 3, "nin_gc": 1}
"""Trainings of each network, with seeds from 0."""

DEPLOYED = 0
"""The seed whose networks also go to an engine."""

FLOAT = Train(epochs=8, lr=2e-3)


def wbwtab(weights: str, activations: str) -> tuple[Step, ...]:
    quantize = Quantize("wbwtab", {"weights": weights, "activations": activations})
    if activations == "float":
        return (quantize, Train(epochs=6, lr=1e-3, batch_size=32), Fuse("bn"))
    train = Train(epochs=4, lr=2e-3, batch_size=32)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="Folder of runs.")
    parser.add_argument("--out", type=Path, required=True, help="The page.")
    parser.add_argument("--models", default=",".join(SEEDS), help="Only these, as in nin,nin_gc.")
    parser.add_argument("--seeds", type=int, default=3, help="At most so many.")
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[Measured]]] = {}
    seeds = {name: min(SEEDS[name], arguments.seeds) for name in arguments.models.split(",")}
    for model, name, measured in runs(arguments.runs, seeds):
        found.setdefault(model, {}).setdefault(name, []).append(measured)
        arguments.out.write_text(page(found, arguments.runs), "utf-8")


@attrs.frozen
class Measured:
    """A run's last row before deployment, and its engine's agreement, if it was deployed."""

    row: Row
    parity: float | None


def runs(folder: Path, seeds: dict[str, int]) -> Iterator[tuple[str, str, Measured]]:
    """Model, row and measurements of each run, as it is done."""
    for model, count in seeds.items():
        for seed in range(count):
            trained = folder / f"{model}-{seed}-float"
            (row,) = micronet.run(recipe(model, seed, (FLOAT,)), trained).rows
            yield model, model, Measured(row, None)
            weights = str(trained / "steps" / "01-train.safetensors")
            for name, steps in ROWS.items():
                all_steps = (*steps, Deploy()) if seed == DEPLOYED else steps
                run = folder / f"{model}-{seed}-{name.replace(' ', '-').replace('/', '-')}"
                rows = micronet.run(recipe(model, seed, all_steps, weights), run).rows
                engine = rows[-1].parity_top1
                yield model, name, Measured(rows[-1 if engine is None else -2], engine)


def recipe(
    model: str, seed: int, steps: tuple[Step, ...], weights: str | None = None
) -> micronet.Recipe:
    return micronet.Recipe(model=model, data="digits", steps=steps, seed=seed, weights=weights)


def page(found: dict[str, dict[str, list[Measured]]], folder: Path) -> str:
    where = json.loads(next(folder.glob("*/environment.json")).read_text("utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    tables = "\n".join(f"## {model}\n\n{table(rows)}" for model, rows in found.items())
    recipes = "\n".join(f"| {name} | {written(steps)} |" for name, steps in ROWS.items())
    return _PAGE.format(
        tables=tables,
        recipes=recipes,
        float_recipe=written((FLOAT,)),
        deployed=DEPLOYED,
        versions=f"{versions}, Python {platform.python_version()}, {where['cpu']}",
    )


def table(rows: dict[str, list[Measured]]) -> str:
    header = ["Type", "W bits", "A bits", "Acc", "GFLOPs", "Params (M)", "Size (MB)"]
    header += ["Compression", "Loss", "Seeds", "Parity"]
    lines = [header, ["---"] * len(header), *(line(name, rows[name]) for name in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


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

What quantization does to the accuracy and the file size of trained networks. The data are
scikit-learn's handwritten digits, resized to 3x32x32, of which 360 are held out: one image is
0.28%. Numbers are measured, on files that were written; made by
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

{tables}
## Recipes

The float network is trained first, with {float_recipe}.
Each row goes on from the float network of its seed, which its recipe names as `weights`. Options
that are not named have their defaults.

| Row | Steps |
| --- | --- |
{recipes}

For seed {deployed}, `deploy` follows. Versions: {versions}.
"""

if __name__ == "__main__":
    main()
