"""Trains or calibrates an integer network.

python main.py --q_type 0 --q_level 0 --bn_fuse                                          QAT
python main.py --refine FLOAT.pth --q_level 0 --bn_fuse --pretrained_model --ptq         PTQ
python main.py --resume models_save/nin_gc_bn_fused.pth --q_level 0 --bn_fuse --qaft     QAFT
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from micronet.compression.command import count, run
from micronet.compression.quantization import commands
from micronet.compression.quantization.wqaq.iao.flags import add_options, technique_of
from micronet.errors import OptionError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = commands.training_parser("Trains or calibrates an integer network.")
    sources = commands.add_sources(parser)
    sources.add_argument("--prune_qaft", metavar="FILE", help="a pruned, quantized model, for QAFT")
    add_options(parser)
    parser.add_argument(
        "--pretrained_model",
        action="store_true",
        help="keep the float model's batch-norm statistics, which happens in any case",
    )
    parser.add_argument("--qaft", action="store_true", help="train on the grids that are known")
    parser.add_argument("--ptq_control", action="store_true", help="calibrate, do not train")
    parser.add_argument("--ptq_batch", type=count, default=200, help="batches to calibrate with")
    return run(_train, parser, argv, script=__file__)


def _train(arguments: argparse.Namespace) -> None:
    resume = arguments.resume or arguments.prune_qaft
    if arguments.qaft and not resume:
        raise OptionError(
            "--qaft goes on with a model whose grids are known; give what QAT or PTQ wrote with "
            "--resume or --prune_qaft."
        )
    if arguments.prune_qaft and not arguments.qaft:
        raise OptionError("--prune_qaft is for --qaft; --resume goes on with QAT.")
    commands.train(
        arguments,
        "iao",
        technique_of(arguments),
        resume=resume,
        suffix="_bn_fused" if arguments.bn_fuse else "",
        qaft=arguments.qaft,
        calibrate=(arguments.ptq or arguments.ptq_control) and not arguments.qaft,
    )


if __name__ == "__main__":
    sys.exit(main())
