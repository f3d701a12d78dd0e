"""The flags that say how many values weights and activations may take."""

from __future__ import annotations

import argparse
from typing import Any

from micronet.compression.quantization.wbwtab.quantize import quantizer


def add_options(parser: argparse.ArgumentParser) -> None:
    """One flag for each option of `quantizer`."""
    parser.add_argument(
        "--W", type=int, choices=(2, 3, 32), default=2, help="2 binary, 3 ternary, 32 float"
    )
    parser.add_argument("--A", type=int, choices=(2, 32), default=2, help="2 binary, 32 float")


def technique_of(arguments: argparse.Namespace) -> Any:
    """The quantizer that the flags describe."""
    return quantizer(A=arguments.A, W=arguments.W)
