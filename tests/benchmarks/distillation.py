"""What a teacher adds to fine-tuning: after pruning 70%, and for binary weights and activations.

    python tests/benchmarks/distillation.py [--seeds 3]

Each row fine-tunes the same float network of each seed for the same epochs, by labels alone, by
labels and its own float network, and by that network alone.
"""

import argparse
import statistics
from importlib.metadata import version

import torch
from characters import characters

from micronet import registry
from micronet.training.accelerator import make_accelerator
from micronet.training.distillation import Distillation
from micronet.training.evaluation import measured
from micronet.training.kernels import channels_last
from micronet.training.loop import TrainingOptions, train
from micronet.training.objective import Objective

WIDTHS = (96, 80, 48, 96, 96, 96, 96, 96)
LOSSES = {"labels": None, "labels and teacher": 0.9, "teacher": 1.0}


def options(epochs, lr, batch_size):
    return TrainingOptions(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        optimizer="adamw",
        weight_decay=0.0,
        schedule="one_cycle",
        workers=0,
    )


class Case:
    """A data set, and a float network that learned it."""

    def __init__(self, sets, classes, epochs, seed):
        self.train_set, self.test_set = sets
        self.seed = seed
        self.accelerator = make_accelerator(cpu=True)
        self.task = registry.create("task", "classification", classes=classes)
        torch.manual_seed(seed)
        net = registry.create("model", "nin", num_classes=classes, cfg=WIDTHS).build()
        self.net = channels_last(net)
        self.go(self.net, options(epochs, 4e-3, 64))

    def go(self, model, how, weight=None):
        distillation = None
        if weight is not None:
            teacher = self.net.eval().requires_grad_(requires_grad=False)
            distillation = Distillation(teacher, self.task, temperature=2.0)
        objective = Objective(task=self.task, distillation=distillation, weight=weight or 1.0)
        train(
            model,
            self.train_set,
            how,
            task=self.task,
            accelerator=self.accelerator,
            seed=self.seed,
            objective=objective,
        )

    @property
    def images(self):
        return (torch.stack([self.train_set[0][0], self.train_set[1][0]]),)

    def accuracy(self, model):
        found = measured(model, self.test_set, task=self.task, accelerator=self.accelerator)
        return found.compute()["accuracy"]

    def pruned(self):
        pruner = registry.create("pruner", "normal", percent=0.7, target="params")
        return pruner.prune(self.net, self.images).model.requires_grad_()

    def binary(self):
        quantizer = registry.create("quantizer", "wbwtab")
        return quantizer.prepare(self.net, self.images).requires_grad_()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    print(f"torch {version('torch')}; nin {WIDTHS}, mean of {len(seeds)} seeds")
    print(f"| Network | Float | {' | '.join(LOSSES)} |")
    print("| --- " * (len(LOSSES) + 2) + "|")
    digits = registry.create("dataset", "digits").load()
    letters = characters(62 * 60, 0), characters(62 * 20, 1)
    for name, sets, classes in (("digits", digits, 10), ("characters", letters, 62)):
        cases = [Case(sets, classes, 10, seed) for seed in seeds]
        whole = statistics.mean(case.accuracy(case.net) for case in cases)
        for change, make, how in (
            ("70% pruned", Case.pruned, options(3, 2e-3, 64)),
            ("W1A1", Case.binary, options(6, 4e-3, 32)),
        ):
            cells = []
            for weight in LOSSES.values():
                found = []
                for case in cases:
                    torch.manual_seed(case.seed)
                    model = channels_last(make(case))
                    case.go(model, how, weight)
                    found.append(case.accuracy(model))
                cells.append(statistics.mean(found))
            told = " | ".join(f"{cell:.2%}" for cell in cells)
            print(f"| {name}, {change} | {whole:.2%} | {told} |", flush=True)


if __name__ == "__main__":
    main()
