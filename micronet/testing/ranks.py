"""Two processes that share what their observers see, as a distributed training's do."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed


def on_two_ranks(work: Callable[[int], dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """What a function returns on each of two ranks; it gets the rank, and may not call backward.

    The ranks are forks of this process, so nothing need be imported again; see `can_fork`.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [context.Process(target=_rank, args=(rank, work, folder)) for rank in (0, 1)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        failures = [Path(folder, f"error.{rank}") for rank in (0, 1)]
        for failure in failures:
            if failure.exists():
                raise RuntimeError(failure.read_text("utf-8"))
        return [torch.load(Path(folder, f"state.{rank}"), weights_only=True) for rank in (0, 1)]


def can_fork() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()


def _rank(rank: int, work: Callable[[int], dict[str, Tensor]], folder: str) -> None:
    torch.set_num_threads(1)  # a fork has none of the parent's threads
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    try:
        torch.save(work(rank), Path(folder, f"state.{rank}"))
    except Exception as error:  # for the parent, which says whose it is
        Path(folder, f"error.{rank}").write_text(f"{type(error).__name__}: {error}", "utf-8")
    finally:
        distributed.destroy_process_group()
