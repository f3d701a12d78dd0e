"""The one place that makes an Accelerator: its environment does not decide numbers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from micronet.errors import RunError, blaming, listed

_PREFIX = "ACCELERATE_"
_DEVICE = "ACCELERATE_TORCH_DEVICE"
_HEARD = {
    _DEVICE,
    "ACCELERATE_USE_CPU",
    "ACCELERATE_CPU_AFFINITY",
    "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_DEBUG_RDV_FILE",
    "ACCELERATE_ENABLE_RICH",
    "ACCELERATE_LOG_LEVEL",
}
"""Where the model is, which a run records, and what is logged."""
_OFF = {"", "0", "auto", "cpu", "default", "false", "no", "none"}
"""Values by which a launcher says that it asks for nothing."""
_ONE_STEP = ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")

_SOME_UNUSED = DistributedDataParallelKwargs(find_unused_parameters=True)
"""On several processes as on one, a model may have layers that a batch gives no gradient."""


def make_accelerator(*, cpu: bool, quiet: bool = False) -> Accelerator:
    """What a model is trained and measured on, in full precision and one process or many.

    Accelerate takes mixed precision, gradient accumulation, compilation and its plugins from
    variables too, in part over the arguments; they are hidden from it, and named on stderr.

    Args:
        cpu: Stay on the CPU where there is a GPU.
        quiet: Name nothing.

    Raises:
        RunError: It can't start, or the process has one with other settings.
    """
    with _hidden(_unheard(cpu=cpu)), blaming("Accelerate can't start", RunError):
        accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[_SOME_UNUSED])
    ignored = ignored_variables(cpu=cpu)
    if ignored and accelerator.is_main_process and not quiet:
        told = listed(f"{name}={value}" for name, value in ignored.items())
        print(
            f"micronet: Ignored, so that the environment changes no numbers: {told}.",
            file=sys.stderr,
        )
    return accelerator


def ignored_variables(*, cpu: bool) -> dict[str, str]:
    """What `make_accelerator` hides of the environment and would have had an effect."""
    return {
        name: value
        for name, value in _unheard(cpu=cpu).items()
        if value.casefold() not in _OFF and (name, value) != _ONE_STEP
    }


def _unheard(*, cpu: bool) -> dict[str, str]:
    heard = _HEARD - {_DEVICE} if cpu else _HEARD
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_PREFIX) and name not in heard
    }


@contextmanager
def _hidden(variables: Mapping[str, str]) -> Iterator[None]:
    for name in variables:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(variables)
