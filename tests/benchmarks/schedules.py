"""Which schedule trains best: several networks, data and rates, the same epochs, mean of seeds.

python tests/benchmarks/schedules.py [--seeds 3]
"""

import argparse
import statistics
from importlib.metadata import version

import torch
from characters import characters
from torchvision import models

from micronet import registry
from micronet.training.accelerator import make_accelerator
from micronet.training.evaluation import measured
from micronet.training.kernels import channels_last
from micronet.training.loop import TrainingOptions, train

SCHEDULES = {
    "one_cycle": ("one_cycle", None),
    "cosine": ("cosine", None),
    "cosine, 5% warm-up": ("cosine", 0.05),
    "step": ("step", None),
    "constant": ("constant", None),
}


def built(name, **options):
    return lambda: registry.create("model", name, **options).build()


def quantized(build, images):
    def make():
        quantizer = registry.create("quantizer", "iao", w_bits=4, a_bits=4)
        return quantizer.prepare(build(), (images,))

    return make


def cases():
    digits = registry.create("dataset", "digits").load()
    letters = characters(62 * 60, 0), characters(62 * 20, 1)
    two = torch.stack([digits[0][0][0], digits[0][1][0]])
    narrow = built("nin", cfg=(96, 80, 48, 96, 96, 96, 96, 96))
    return [
        ("nin, digits", digits, narrow, 10, 8),
        ("nin W4A4, digits", digits, quantized(narrow, two), 10, 8),
        ("nin, characters", letters, built("nin", num_classes=62, cfg=(96,) * 8), 62, 6),
        ("resnet18, digits", digits, lambda: models.resnet18(num_classes=10), 10, 4),
        ("mobilenet_v2, digits", digits, lambda: models.mobilenet_v2(num_classes=10), 10, 8),
        (
            "mobilenet_v3_small, characters",
            letters,
            lambda: models.mobilenet_v3_small(num_classes=62),
            62,
            6,
        ),
    ]


def accuracy(build, sets, classes, epochs, lr, schedule, warmup, seed):
    accelerator = make_accelerator(cpu=True)
    task = registry.create("task", "classification", classes=classes)
    torch.manual_seed(seed)
    model = channels_last(build())
    options = TrainingOptions(
        epochs=epochs,
        lr=lr,
        batch_size=128 if classes > 10 else 64,
        optimizer="adamw",
        weight_decay=0.0,
        schedule=schedule,
        warmup=warmup,
        workers=0,
    )
    train(model, sets[0], options, task=task, accelerator=accelerator, seed=seed)
    found = measured(model, sets[1], task=task, accelerator=accelerator)
    return found.compute()["accuracy"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    print(f"torch {version('torch')}, torchvision {version('torchvision')}; {len(seeds)} seeds")
    print(f"| Network, data | Rate | {' | '.join(SCHEDULES)} |")
    print("| --- " * (len(SCHEDULES) + 2) + "|")
    for name, sets, build, classes, epochs in cases():
        for lr in (1e-3, 4e-3):
            cells = [
                statistics.mean(
                    accuracy(build, sets, classes, epochs, lr, *schedule, seed) for seed in seeds
                )
                for schedule in SCHEDULES.values()
            ]
            print(f"| {name} | {lr:g} | {' | '.join(f'{c:.1%}' for c in cells)} |", flush=True)


if __name__ == "__main__":
    main()
