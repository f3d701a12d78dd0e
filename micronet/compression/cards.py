"""Which cards a classic command runs on."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence

import torch

from micronet.errors import RunError

_LAUNCHED = "LOCAL_RANK"
"""Set by torchrun and `accelerate launch` for each process that they start."""


def choose(arguments: argparse.Namespace) -> None:
    """Hides the cards that `--gpu_id` does not name.

    Raises:
        RunError: A card that it names is not there.
    """
    wanted = arguments.gpu_id
    if arguments.cpu or not wanted or _LAUNCHED in os.environ:
        return
    if not re.fullmatch(r"\d+(,\d+)*", wanted):
        raise RunError(f"--gpu_id takes numbers of cards, as in 0 or 0,1,2, got {wanted!r}.")
    os.environ["CUDA_VISIBLE_DEVICES"] = wanted
    if torch.cuda.device_count() < len(wanted.split(",")):
        raise RunError(f"There is no card for --gpu_id {wanted}. --cpu goes without.")


def processes(arguments: argparse.Namespace) -> int:
    """How many the command needs, one for each card; 1 where it was launched as one of them."""
    choose(arguments)
    if arguments.cpu or _LAUNCHED in os.environ:
        return 1
    return max(1, torch.cuda.device_count())


def launch(script: str, argv: Sequence[str], count: int) -> int:
    """Runs a script in `count` processes, which Accelerate makes one training of."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    line = [*launcher, f"--nproc-per-node={count}", script, *argv]
    return subprocess.run(line, check=False).returncode  # noqa: S603 (our own script)
