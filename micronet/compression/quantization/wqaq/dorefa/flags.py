"""The flags that say how wide weights and activations are."""

from __future__ import annotations

import argparse
from typing import Any

from micronet.compression.quantization.wqaq.dorefa.quantize import quantizer


def add_options(parser: argparse.ArgumentParser) -> None:
    """One flag for each option of `quantizer`."""
    parser.add_argument("--w_bits", type=int, default=8, help="width of the weights; 32 for float")
    parser.add_argument("--a_bits", type=int, default=8, help="of the activations; 32 for float")


def technique_of(arguments: argparse.Namespace) -> Any:
    """The quantizer that the flags describe. Raises OptionError."""
    return quantizer(w_bits=arguments.w_bits, a_bits=arguments.a_bits)
