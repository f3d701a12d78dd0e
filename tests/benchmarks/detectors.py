"""torchvision's detectors on scenes of digits: mAP in float, pruned, and after fine-tuning.

    python tests/benchmarks/detectors.py --runs runs/detectors [--only fasterrcnn]

Nothing is fetched, so they learn from random weights, on few scenes: the figures say what pruning
costs, not how good these detectors are. A stopped run goes on.
"""

import argparse
from importlib.metadata import version
from pathlib import Path

from micronet.pipeline import run
from micronet.recipe import Evaluate, Named, Prune, Recipe, Train

DETECTORS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"batch_size": 8, "lr": 2e-3},
    "retinanet_resnet50_fpn": {"batch_size": 8, "lr": 5e-4},
}
SIZE = 96
EPOCHS, MORE = 6, 2


def recipe(name, how):
    learn = {**how, "schedule": "one_cycle", "clip": 5.0}
    return Recipe(
        model=Named(f"torchvision/{name}", {"num_classes": 11, "min_size": SIZE, "max_size": SIZE}),
        data=Named(
            "digit_scenes", {"targets": "detection", "train": 600, "test": 150, "size": SIZE}
        ),
        task="detection",
        steps=(
            Train(epochs=EPOCHS, **learn),
            Prune("normal", {"percent": 0.3, "target": "params"}),
            Train(epochs=MORE, **{**learn, "lr": how["lr"] / 2}),
            Evaluate(),
        ),
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    print(f"torch {version('torch')}, torchvision {version('torchvision')}")
    print("| Detector | Step | Params (M) | mAP | AP50 |")
    print("| --- | --- | --- | --- | --- |")
    for name, how in DETECTORS.items():
        if arguments.only in name:
            for row in run(recipe(name, how), arguments.runs / name).rows[:3]:
                figures = [f"{row.figures[key]:.3f}" for key in ("mean_ap", "ap50")]
                cells = [name, row.step, f"{row.params_m:.2f}", *figures]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
