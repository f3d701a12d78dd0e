"""How long calls take, beside each other and whatever else the machine does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import numpy as np

MARK = "*"
"""Behind a figure that does not stand for itself."""

LEGEND = f"Figures with {MARK} were timed on a busy machine: do not trust them."
_QUIET = 0.2


@attrs.frozen
class Timing:
    """Calls that took turns.

    Args:
        times: Milliseconds of every round, for each call.
        waiting: Time that their threads waited for a processor, as a fraction of the time that
            they ran; near 0 on a quiet machine, and 0 where the system does not tell.
    """

    times: Sequence[Sequence[float]]
    waiting: float

    @property
    def medians(self) -> list[float]:
        """Median milliseconds of each call."""
        return [self.percentile(call, 50) for call in range(len(self.times))]

    def percentile(self, call: int, percent: float) -> float:
        """Milliseconds that so many percent of a call's rounds did not exceed."""
        return float(np.percentile(self.times[call], percent))

    @property
    def disturbed(self) -> bool:
        """Whether so much else was going on that the times are not the calls' own."""
        return self.waiting > _QUIET

    @property
    def warning(self) -> str:
        """What to say where they were disturbed."""
        return (
            f"The machine was busy: the engines waited {self.waiting:.1f} times as long for a "
            f"processor as they ran, so do not trust these latencies."
        )


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
    return Timing(times, waiting)


def _thread_times() -> tuple[int, int]:
    """Nanoseconds that this process's threads ran and waited to run; 0 where Linux is not."""
    ran = waited = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            thread_ran, thread_waited, _ = path.read_text("ascii").split()
            ran, waited = ran + int(thread_ran), waited + int(thread_waited)
    return ran, waited
