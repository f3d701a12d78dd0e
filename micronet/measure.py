"""What a model costs: operations, parameters, bits, time."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from micronet.modes import attention_in_parts, evaluating
from micronet.quantization import (
    FakeQuantizer,
    StoredWeight,
    fake_quantizers,
    in_mode,
    quantized_layers,
    weight_of,
)

FLOAT_BITS = 32
_QUIET = 0.2


def gflops(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> float:
    """Billions of multiply-accumulates for one image; one multiplication and addition count 1."""
    inputs = tuple(tensor[:1] for tensor in example_inputs)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), evaluating(model), in_mode("off", model), attention_in_parts(), counter:
        model(*inputs)
    return float(counter.get_total_flops()) / 2 / 1e9


def params_m(model: nn.Module) -> float:
    """Millions of trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def weight_bits(model: nn.Module) -> float:
    """Width of most weights' codes; 32 for a float model."""
    counts: Counter[float] = Counter()
    for _, layer in quantized_layers(model):
        quantizer = layer.weight_quantizer
        if isinstance(quantizer, FakeQuantizer):
            counts[quantizer.bits] += weight_of(layer).numel()
        elif isinstance(quantizer, StoredWeight):
            counts[quantizer.bits] += quantizer.codes.numel()
    return counts.most_common(1)[0][0] if counts else FLOAT_BITS


def activation_bits(model: nn.Module) -> float:
    """Width of most activations' codes; 32 where activations are float."""
    of_weights = {id(layer.weight_quantizer) for _, layer in quantized_layers(model)}
    counts = Counter(q.bits for _, q in fake_quantizers(model) if id(q) not in of_weights)
    return counts.most_common(1)[0][0] if counts else FLOAT_BITS


@attrs.frozen
class Timing:
    """Calls that took turns.

    Args:
        medians: Median milliseconds of each call.
        waiting: Time that their threads waited for a processor, as a fraction of the time that
            they ran; near 0 on a quiet machine, and 0 where the system does not tell.
    """

    medians: list[float]
    waiting: float

    @property
    def disturbed(self) -> bool:
        """Whether so much else was going on that the times are not the calls' own."""
        return self.waiting > _QUIET


def time_calls(calls: Sequence[Callable[[], object]], *, rounds: int = 50) -> Timing:
    """Times calls; they take turns, so that what else the machine does meets all of them alike."""
    for call in calls:
        for _ in range(3):
            call()
    times: list[list[float]] = [[] for _ in calls]
    ran_before, waited_before = _thread_times()
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append((time.perf_counter() - start) * 1e3)
    ran, waited = _thread_times()
    waiting = (waited - waited_before) / (ran - ran_before) if ran > ran_before else 0.0
    return Timing([statistics.median(taken) for taken in times], waiting)


def _thread_times() -> tuple[int, int]:
    """Nanoseconds that this process's threads ran and waited to run; 0 where Linux is not."""
    ran = waited = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            thread_ran, thread_waited, _ = path.read_text("ascii").split()
            ran, waited = ran + int(thread_ran), waited + int(thread_waited)
    return ran, waited
