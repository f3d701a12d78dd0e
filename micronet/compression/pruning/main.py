"""Trains a float network: from fresh weights, sparse for pruning, or after pruning.

python main.py --model_type 0                                              the float network
python main.py -sr --s 0.0001 --model_type 0                               sparse
python main.py --model_type 0 --prune_refine models_save/nin_prune.pth     after pruning
python main.py --model_type 1 --gc_prune_refine 154 162 144 304 320 320 608 584
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from torch import nn

from micronet import registry
from micronet.compression.checkpoint import SAVED, Checkpoint, build, cfg_of
from micronet.compression.command import (
    Parser,
    add_device_and_data,
    add_model_type,
    add_training,
    count,
    positive,
    run,
)
from micronet.compression.session import Session
from micronet.models import name_of

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = Parser("Trains a float network, sparse for pruning or after it.")
    add_device_and_data(parser)
    add_training(parser, lr=0.01, wd=1e-4)
    add_model_type(parser)
    parser.add_argument("-sr", action="store_true", help="sparse: pull batch-norm gammas to 0")
    parser.add_argument("--s", type=positive, default=1e-4, help="how strongly -sr pulls")
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument("--resume", metavar="FILE", help="go on with a model")
    sources.add_argument("--refine", metavar="FILE", help="start with a model")
    sources.add_argument("--prune_refine", metavar="FILE", help="train a pruned model on")
    sources.add_argument(
        "--gc_prune_refine",
        type=count,
        nargs="+",
        metavar="CHANNELS",
        help="train a network with so many channels in each layer before the last, fresh",
    )
    return run(_train, parser, argv, script=__file__)


def _train(arguments: argparse.Namespace) -> None:
    session = Session.open(arguments)
    kind, model = _start(arguments)
    model = session.placed(model)
    path = SAVED / f"{kind}{_suffix(arguments)}.pth"

    def save(acc: float) -> None:
        Checkpoint(path, model.state_dict(), kind, cfg_of(model, kind), acc).save()

    regularize = None
    if arguments.sr:
        pruner = registry.create("pruner", "normal")

        def regularize(bare: nn.Module) -> None:
            pruner.regularize(bare, arguments.s)

    session.train(model, save, optimizer="sgd", regularize=regularize)
    session.say(f"{path} is written")


def _start(arguments: argparse.Namespace) -> tuple[str, nn.Module]:
    """The name of the model and the model."""
    source = arguments.resume or arguments.refine or arguments.prune_refine
    if source:
        checkpoint = Checkpoint.load(source, arguments.model_type)
        return checkpoint.model, checkpoint.float_model()
    kind = name_of(arguments.model_type)
    cfg = arguments.gc_prune_refine
    return kind, build(kind, None if cfg is None else tuple(cfg))


def _suffix(arguments: argparse.Namespace) -> str:
    if arguments.prune_refine:
        return "_finetune"
    if arguments.gc_prune_refine:
        return "_retrain"
    return "_sparse" if arguments.sr else ""


if __name__ == "__main__":
    sys.exit(main())
