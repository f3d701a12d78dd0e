"""Several processes, one for each GPU: how they are started, and how they end together."""

from __future__ import annotations

import os
import sys

import typer

from micronet.errors import MicronetError
from micronet.streams import give_back


def choose_gpus(text: str) -> None:
    """Limits this process to one GPU, or replaces it by one process for each of several."""
    ids = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in ids) or len(set(ids)) != len(ids):
        raise typer.BadParameter(f"--gpu-id {text}: write numbers, as in 0 or 0,1.")
    if "LOCAL_RANK" in os.environ:  # already one of several processes
        return
    import torch

    there = torch.cuda.device_count()
    absent = [part for part in ids if int(part) >= there]
    if absent:
        raise MicronetError(
            f"--gpu-id {text}: there is no GPU {absent[0]}; this machine has {there}. "
            f"Use --cpu to stay on the CPU."
        )
    if len(ids) == 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = text
        return
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--gpu_ids", text]
    launch += ["--num_processes", str(len(ids)), "-m", "micronet", *sys.argv[1:]]
    give_back()
    os.execv(sys.executable, [sys.executable, *launch])  # noqa: S606 (our own interpreter)


def leave_the_others() -> None:
    """Ends the threads that several processes talk by; they must not outlive the interpreter."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
