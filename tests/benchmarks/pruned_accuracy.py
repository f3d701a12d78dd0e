"""nin and nin_gc with 30, 50 and 70% of their channels removed, on digits; prints Markdown.

    python tests/benchmarks/pruned_accuracy.py --runs FOLDER [--epochs 3] [--seed 0]

Each is trained sparse, pruned, trained on for as many epochs and deployed to ONNX Runtime in
float. Runs that are in FOLDER already go on where they stopped.
"""

import argparse
from pathlib import Path

from micronet.pipeline import Row, run
from micronet.recipe import Deploy, Named, Prune, Recipe, Train

FRACTIONS = (0.3, 0.5, 0.7)
PRUNERS = {"nin": "normal", "nin_gc": "gc"}
SPARSITY = {"nin": 1e-4, "nin_gc": 1e-3}


def rows_of(model: str, fraction: float, options: argparse.Namespace) -> list[Row]:
    """What a run found out; the sparse training is that of the first fraction."""
    first = options.runs / f"{model}-{FRACTIONS[0]}"
    sparse = Train(epochs=options.epochs, lr=2e-3, sparsity=SPARSITY[model])
    shared = fraction != FRACTIONS[0]
    recipe = Recipe(
        model=Named(model),
        data=Named("digits"),
        weights=str(first.resolve() / "steps" / "01-train.safetensors") if shared else None,
        seed=options.seed,
        steps=[
            *([] if shared else [sparse]),
            Prune(pruner=PRUNERS[model], options={"percent": fraction}),
            Train(epochs=options.epochs, lr=1e-3),
            Deploy(threads=1),
        ],
    )
    return list(run(recipe, options.runs / f"{model}-{fraction}", cpu=True).rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=list(PRUNERS), default=list(PRUNERS))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lines = []
    for model in options.models:
        for fraction in FRACTIONS:
            first, *_, pruned, engine = rows_of(model, fraction, options)
            if fraction == FRACTIONS[0]:
                lines.append(line(f"{model}", first, engine.float_latency_ms, 1.0))
            name = f"{model}, {PRUNERS[model]} {fraction:.0%}"
            lines.append(line(name, pruned, engine.latency_ms, engine.speedup))
    print(
        "| Network | Acc | GFLOPs | Params (M) | Size (MB) | Latency (ms) | Speed-up |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    print("\n".join(lines))


def line(name: str, row: Row, latency_ms: float, speedup: float) -> str:
    return (
        f"| {name} | {row.accuracy:.2%} | {row.gflops:.3f} | {row.params_m:.3f} | "
        f"{row.size_mb:.2f} | {latency_ms:.2f} | {speedup:.2f}x |"
    )


if __name__ == "__main__":
    main()
