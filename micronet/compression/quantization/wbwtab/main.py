"""Trains a binary or ternary network: `python main.py --W 2 --A 2 --model_type 1`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from micronet.compression.command import run
from micronet.compression.quantization import commands
from micronet.compression.quantization.wbwtab.flags import add_options, technique_of

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = commands.training_parser("Trains a network with weights of few values.")
    commands.add_sources(parser)
    add_options(parser)
    return run(_train, parser, argv, script=__file__)


def _train(arguments: argparse.Namespace) -> None:
    commands.train(arguments, "wbwtab", technique_of(arguments), resume=arguments.resume)


if __name__ == "__main__":
    sys.exit(main())
