"""What the classic command lines share: their flags, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from micronet.compression import cards
from micronet.errors import MicronetError, in_words

_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence and exits with 2."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def run(
    command: Callable[[argparse.Namespace], None],
    parser: Parser,
    argv: Sequence[str] | None,
    *,
    script: str | None = None,
) -> int:
    """Runs a command and gives its exit code: 0 done, 2 something the user can mend.

    Args:
        command: Takes the parsed flags.
        parser: Of the flags.
        argv: The flags; `None` for those of this process.
        script: The command's file, to start once for each card; `None` where one process does.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = parser.parse_args(words)
    try:
        if script is not None and (processes := cards.processes(arguments)) > 1:
            return cards.launch(script, words, processes)
        command(arguments)
    except (MicronetError, OSError) as error:
        told = in_words(error)
        if told is None:
            raise
        print(f"{parser.prog}: {told}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def add_model_type(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model_type",
        type=int,
        choices=(0, 1, 2),
        help="0 nin, 1 nin_gc, 2 resnet; by default what a given file holds, or else nin_gc",
    )


def add_device_and_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    parser.add_argument("--gpu_id", default="", help="cards, as in 0 or 0,1,2; all by default")
    parser.add_argument(
        "--dataset",
        choices=("cifar10", "digits"),
        default="cifar10",
        help="digits needs no network",
    )
    parser.add_argument("--data", help="folder of CIFAR-10; by default the user's cache")
    parser.add_argument(
        "--eval_batch_size", type=count, default=256, help="images at a time in evaluation"
    )


def add_training(parser: argparse.ArgumentParser, *, lr: float, wd: float) -> None:
    """Flags of the training loop.

    Args:
        parser: Gets them.
        lr: Default learning rate.
        wd: Default weight decay.
    """
    parser.add_argument("--lr", type=positive, default=lr, help="learning rate at the start")
    parser.add_argument("--wd", type=_not_negative, default=wd, help="weight decay")
    parser.add_argument("--start_epochs", type=count, default=1, help="number of the first epoch")
    parser.add_argument(
        "--end_epochs", "--epochs", type=whole, default=300, help="number of the last epoch"
    )
    parser.add_argument(
        "--batch_size", "--train_batch_size", type=count, default=128, help="images in a step"
    )
    parser.add_argument("--num_workers", type=whole, default=2, help="processes that load images")


def _number(text: str, kind: type[int | float], least: float, *, above: bool) -> float:
    words = "an integer" if kind is int else "a number"
    bound = f"above {least:g}" if above else f"of at least {least:g}"
    try:
        value = kind(text)
    except ValueError:
        value = kind(least - 1)
    if not (least < value if above else least <= value) or value == float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not {words} {bound}")
    return value


def positive(text: str) -> float:
    """A flag's number above 0."""
    return _number(text, float, 0, above=True)


def _not_negative(text: str) -> float:
    return _number(text, float, 0, above=False)


def whole(text: str) -> int:
    """A flag's integer of at least 0."""
    return int(_number(text, int, 0, above=False))


def count(text: str) -> int:
    """A flag's integer of at least 1."""
    return int(_number(text, int, 1, above=False))
