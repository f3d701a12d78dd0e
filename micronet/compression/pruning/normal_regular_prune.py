"""Removes channels of a sparse network: `python normal_regular_prune.py --percent 0.5`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from micronet.compression.command import count, run
from micronet.compression.pruning.commands import prune, pruning_parser
from micronet.registry import create

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = pruning_parser("Removes the channels of nin with the smallest gammas.", "nin")
    parser.add_argument(
        "--normal_regular",
        type=count,
        default=1,
        metavar="N",
        help="keep a multiple of N channels in each layer",
    )
    return run(_prune, parser, argv)


def _prune(arguments: argparse.Namespace) -> None:
    multiple = arguments.normal_regular
    if multiple > 1:
        pruner = create("pruner", "regular", percent=arguments.percent, multiple=multiple)
    else:
        pruner = create("pruner", "normal", percent=arguments.percent)
    prune(arguments, pruner, "nin")


if __name__ == "__main__":
    sys.exit(main())
