"""Measures what `bn_fuse.py` wrote: `python bn_fused_model_test.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from micronet.compression.command import run
from micronet.compression.quantization import commands

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = commands.measuring_parser("Measures the network that bn_fuse.py wrote.")
    return run(_measure, parser, argv)


def _measure(arguments: argparse.Namespace) -> None:
    commands.measure_inference(arguments, commands.FUSED)


if __name__ == "__main__":
    sys.exit(main())
