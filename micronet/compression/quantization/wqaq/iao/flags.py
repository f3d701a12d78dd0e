"""The flags that describe an integer grid."""

from __future__ import annotations

import argparse
from typing import Any

from micronet.compression.quantization.wqaq.iao.quantize import quantizer


def add_options(parser: argparse.ArgumentParser) -> None:
    """One flag for each option of `quantizer`."""
    parser.add_argument("--w_bits", type=int, default=8, help="width of the weights")
    parser.add_argument("--a_bits", type=int, default=8, help="width of the activations")
    parser.add_argument(
        "--q_type", type=int, choices=(0, 1), default=0, help="0 symmetric, 1 asymmetric"
    )
    parser.add_argument(
        "--q_level", type=int, choices=(0, 1), default=0, help="0 per channel, 1 per layer"
    )
    parser.add_argument(
        "--weight_observer", type=int, choices=(0, 1), default=0, help="0 minmax, 1 moving average"
    )
    parser.add_argument("--bn_fuse", action="store_true", help="fold batch norms while training")
    parser.add_argument(
        "--bn_fuse_calib", action="store_true", help="fold with running statistics; with --bn_fuse"
    )
    parser.add_argument("--ptq", action="store_true", help="observe a percentile of activations")
    parser.add_argument("--percentile", type=float, default=0.9999, help="which")


def technique_of(arguments: argparse.Namespace) -> Any:
    """The quantizer that the flags describe. Raises OptionError."""
    return quantizer(
        w_bits=arguments.w_bits,
        a_bits=arguments.a_bits,
        q_type=arguments.q_type,
        q_level=arguments.q_level,
        weight_observer=arguments.weight_observer,
        bn_fuse=arguments.bn_fuse,
        bn_fuse_calib=arguments.bn_fuse_calib,
        ptq=arguments.ptq,
        percentile=arguments.percentile,
    )
