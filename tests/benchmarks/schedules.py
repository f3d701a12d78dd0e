"""Which schedule trains best: several networks, data and rates, the same epochs, mean of seeds.

    python tests/benchmarks/schedules.py [--seeds 3]

Characters are 62 classes drawn with the fonts that matplotlib brings, moved, turned and noisy.
"""

import argparse
import statistics
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.utils.data import TensorDataset
from torchvision import models

from micronet import registry
from micronet.training.accelerator import make_accelerator
from micronet.training.evaluation import measured
from micronet.training.kernels import channels_last
from micronet.training.loop import TrainingOptions, train

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIZE = 32
SCHEDULES = {
    "one_cycle": ("one_cycle", None),
    "cosine": ("cosine", None),
    "cosine, 5% warm-up": ("cosine", 0.05),
    "step": ("step", None),
    "constant": ("constant", None),
}


def characters(images, seed):
    """Images [images, 3, 32, 32] of characters, and their numbers."""
    random = np.random.default_rng(seed)
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    fonts = sorted(p for p in folder.glob("*.ttf") if p.name.startswith(("DejaVuS", "STIXGeneral")))
    drawn = []
    for number in range(images):
        character = CHARACTERS[number % len(CHARACTERS)]
        font = ImageFont.truetype(str(random.choice(fonts)), int(random.integers(16, 28)))
        picture = Image.new("L", (SIZE, SIZE))
        place = tuple(SIZE / 2 + random.uniform(-4, 4, 2))
        ImageDraw.Draw(picture).text(place, character, 255, font, anchor="mm")
        picture = picture.rotate(random.uniform(-15, 15))
        drawn.append(np.asarray(picture) / 255 + random.normal(0, 0.2, (SIZE, SIZE)))
    pixels = torch.tensor(np.array(drawn), dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    return TensorDataset(pixels.contiguous(), torch.arange(images) % len(CHARACTERS))


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
