"""Folds a trained network's batch norms: `python bn_fuse.py --w_bits 8 --a_bits 8`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from micronet.compression.command import run
from micronet.compression.quantization import commands
from micronet.compression.quantization.wqaq.iao.flags import add_options, technique_of

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = commands.inference_parser("Folds a trained network's batch norms.")
    add_options(parser)
    return run(_fuse, parser, argv)


def _fuse(arguments: argparse.Namespace) -> None:
    commands.make_inference(
        arguments, technique_of(arguments), commands.FUSED, suffixes=("_bn_fused", "")
    )


if __name__ == "__main__":
    sys.exit(main())
