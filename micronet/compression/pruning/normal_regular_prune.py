"""Removes channels of a sparse network: `python normal_regular_prune.py --percent 0.5`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from micronet import registry
from micronet.compression.checkpoint import Checkpoint, cfg_of
from micronet.compression.command import Parser, add_device_and_data, count, run
from micronet.compression.session import Session
from micronet.errors import PruningError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these flags, or this process's; gives the exit code."""
    parser = Parser("Removes the channels of a sparse network with the smallest gammas.")
    add_device_and_data(parser)
    parser.add_argument("--percent", type=float, default=0.5, help="fraction of channels to remove")
    parser.add_argument(
        "--normal_regular",
        type=count,
        default=1,
        metavar="N",
        help="keep a multiple of N channels in each layer",
    )
    parser.add_argument("--model", default="models_save/nin_sparse.pth", help="the sparse network")
    parser.add_argument("--save", default="models_save/nin_prune.pth", help="where to write")
    return run(_prune, parser, argv)


def _prune(arguments: argparse.Namespace) -> None:
    checkpoint = Checkpoint.load(arguments.model)
    if checkpoint.model != "nin":
        raise PruningError(
            f"{checkpoint.path} holds {checkpoint.model}, and this command prunes nin; a recipe "
            f"prunes any model."
        )
    pruner = _pruner(arguments)
    session = Session.open(arguments)
    model = checkpoint.float_model()
    pruned = pruner.prune(model, (torch.zeros(2, 3, 32, 32),)).model
    cfg = cfg_of(pruned, checkpoint.model)
    before, after = (session.accuracy(session.placed(each)) for each in (model, pruned))
    Checkpoint(Path(arguments.save), pruned.state_dict(), checkpoint.model, cfg, after).save()
    session.say(f"channels {' '.join(map(str, cfg or ()))}")
    session.say(f"accuracy {before:.2%} before, {after:.2%} after")
    session.say(f"{arguments.save} is written")


def _pruner(arguments: argparse.Namespace) -> Any:
    if arguments.normal_regular > 1:
        raise PruningError(
            "--normal_regular needs the pruner 'regular', which micronet does not have yet."
        )
    return registry.create("pruner", "normal", percent=arguments.percent)


if __name__ == "__main__":
    sys.exit(main())
