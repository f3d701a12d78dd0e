"""Writes a trained network with quantized weights: `python quant_model_para.py --w_bits 8`."""

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
    parser = commands.inference_parser(
        "Writes a trained network with quantized values for weights."
    )
    add_options(parser)
    return run(_fuse, parser, argv)


def _fuse(arguments: argparse.Namespace) -> None:
    commands.make_inference(arguments, technique_of(arguments), commands.PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
