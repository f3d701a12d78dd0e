"""Trains a network on DoReFa's grids: `python main.py --w_bits 8 --a_bits 8 --model_type 1`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from micronet.compression.command import run
from micronet.compression.quantization import commands
from micronet.compression.quantization.wqaq.dorefa.flags import add_options, technique_of

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = commands.training_parser("Trains a network on DoReFa's grids.")
    commands.add_sources(parser)
    add_options(parser)
    return run(_train, parser, argv, script=__file__)


def _train(arguments: argparse.Namespace) -> None:
    commands.train(arguments, "dorefa", technique_of(arguments), resume=arguments.resume)


if __name__ == "__main__":
    sys.exit(main())
