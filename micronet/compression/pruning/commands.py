"""What the commands that remove channels share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from micronet.compression.checkpoint import Checkpoint, cfg_of
from micronet.compression.command import Parser, add_device_and_data
from micronet.compression.session import Session
from micronet.errors import PruningError


def pruning_parser(description: str, model: str) -> Parser:
    """The flags that every such command has.

    Args:
        description: What the command does.
        model: The model that it is for.
    """
    parser = Parser(description)
    add_device_and_data(parser)
    parser.add_argument("--percent", type=float, default=0.5, help="fraction of channels to remove")
    sparse, pruned = (f"models_save/{model}_{what}.pth" for what in ("sparse", "prune"))
    parser.add_argument("--model", default=sparse, metavar="FILE", help="the sparse network")
    parser.add_argument("--save", default=pruned, metavar="FILE", help="where to write")
    return parser


def prune(arguments: argparse.Namespace, pruner: Any, model: str) -> None:
    """Prunes a model file into another, and prints the channels and the accuracy.

    Args:
        arguments: Flags of `pruning_parser`.
        pruner: The technique.
        model: The model that the command is for.

    Raises:
        MicronetError: The file does not fit, or the model can't be pruned like this.
    """
    checkpoint = Checkpoint.load(arguments.model)
    if checkpoint.model != model:
        raise PruningError(
            f"{checkpoint.path} holds {checkpoint.model}, and this command prunes {model}; a "
            f"recipe prunes any model."
        )
    session = Session.open(arguments)
    whole = checkpoint.float_model()
    result = pruner.prune(whole, (torch.zeros(2, 3, 32, 32),))
    cfg = cfg_of(result.model, model)
    before, after = (session.accuracy(session.placed(each)) for each in (whole, result.model))
    Checkpoint(Path(arguments.save), result.model.state_dict(), model, cfg, after).save()
    session.say(f"channels {' '.join(map(str, cfg or ()))}")
    session.say(f"accuracy {before:.2%} before, {after:.2%} after")
    session.say(f"{arguments.save} is written")
