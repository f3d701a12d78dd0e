"""Removes channels of a sparse network with group convolutions: `python gc_prune.py --percent 0.4`.

The numbers of channels that it prints are those of `main.py --gc_prune_refine`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from micronet.compression.command import run
from micronet.compression.pruning.commands import prune, pruning_parser
from micronet.registry import create

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = pruning_parser("Removes the channels of nin_gc with the smallest gammas.", "nin_gc")
    return run(_prune, parser, argv)


def _prune(arguments: argparse.Namespace) -> None:
    prune(arguments, create("pruner", "gc", percent=arguments.percent), "nin_gc")


if __name__ == "__main__":
    sys.exit(main())
