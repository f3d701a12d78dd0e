"""A classic command at work: its device, its data, training and evaluation."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator

import attrs
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from micronet import registry
from micronet.compression import cards
from micronet.techniques import Task
from micronet.training.accelerator import make_accelerator
from micronet.training.evaluation import Images, measured
from micronet.training.kernels import channels_last
from micronet.training.loop import TrainingOptions, train
from micronet.training.memory import keep_freed_memory

_SEED = 0


@attrs.frozen
class Session:
    """Where a command runs and on what."""

    arguments: argparse.Namespace
    accelerator: Accelerator
    train_set: Images
    test_set: Images
    task: Task

    @classmethod
    def open(cls, arguments: argparse.Namespace) -> Session:
        """Takes the device and the data that the flags name.

        Raises:
            DataError: The data is not there.
            RunError: The card is not there.
        """
        cards.choose(arguments)
        accelerator = make_accelerator(cpu=arguments.cpu)
        if accelerator.device.type == "cpu":
            keep_freed_memory()
        set_seed(_SEED)
        options = {"root": arguments.data} if arguments.dataset == "cifar10" else {}
        with accelerator.main_process_first():  # it fetches what the others then find
            train_set, test_set = registry.create("dataset", arguments.dataset, **options).load()
        task = registry.create("task", "classification")
        return cls(arguments, accelerator, train_set, test_set, task)

    def placed(self, model: nn.Module) -> nn.Module:
        """The model on the device."""
        return channels_last(model.to(self.accelerator.device))

    def accuracy(self, model: nn.Module) -> float:
        """Fraction of the test images that a placed model gets right."""
        metric = measured(
            model,
            self.test_set,
            task=self.task,
            accelerator=self.accelerator,
            batch_size=self.arguments.eval_batch_size,
        )
        return metric.compute()["accuracy"]

    def train(
        self,
        model: nn.Module,
        save: Callable[[float], None],
        *,
        optimizer: str,
        regularize: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """Trains a placed model in place, and lets `save` keep the best epoch.

        Args:
            model: To train.
            save: Called with the accuracy of each epoch that is better than those before; with no
                epoch to train, with that of the model as it is.
            optimizer: "sgd" or "adamw".
            regularize: Called between backward and step.

        Raises:
            RunError: The loss is NaN or infinite.
        """
        flags = self.arguments
        epochs = max(0, flags.end_epochs - flags.start_epochs + 1)
        best = -1.0

        def evaluate(epoch: int) -> None:
            nonlocal best
            found = self.accuracy(model)
            self.say(f"epoch {epoch}: accuracy {found:.2%}")
            if found > best:
                best = found
                if self.accelerator.is_main_process:
                    save(found)

        if epochs == 0:
            evaluate(0)
            return
        train(
            model,
            self.train_set,
            TrainingOptions(
                epochs=epochs,
                lr=flags.lr,
                batch_size=max(1, flags.batch_size // self.accelerator.num_processes),
                optimizer=optimizer,
                weight_decay=flags.wd,
                schedule="cosine",
                workers=flags.num_workers,
            ),
            task=self.task,
            accelerator=self.accelerator,
            seed=_SEED,
            regularize=regularize,
            on_epoch=lambda state: evaluate(flags.start_epochs + state.epoch - 1),
        )

    def batches(self, size: int, count: int) -> Iterator[Tensor]:
        """The first `count` batches of `size` training images, on the device."""
        loader = DataLoader(self.train_set, size)
        for images, _ in itertools.islice(loader, count):
            yield images.to(self.accelerator.device)

    def say(self, text: str) -> None:
        """A line of the result, once for all processes."""
        if self.accelerator.is_main_process:
            print(text, flush=True)
