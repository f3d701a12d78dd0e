"""What a run tells while it works, on stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from micronet.deployment.timing import MARK
from micronet.errors import printable
from micronet.pipeline.results import Row, shown_as
from micronet.techniques import Figure

_MINUTE = 60.0


@attrs.define
class Reporter:
    """One progress bar for each step, and one line when it is done.

    Args:
        console: Where to write.
        enabled: False for the other processes of a distributed run.
        clock: Gives seconds.
    """

    console: Console
    enabled: bool = True
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def step(self, title: str) -> Iterator[Bar]:
        """A bar for the time of a step."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(
            *columns, console=self.console, transient=True, disable=not self._shows_bars
        ) as progress:
            task = progress.add_task(title, total=None, note="")
            lines = None if self._shows_bars else Lines(self, title, self.clock())
            yield Bar(progress, task, lines)

    @property
    def _shows_bars(self) -> bool:
        return self.enabled and self.console.is_terminal

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.enabled:
            self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def done(self, title: str, row: Row | None, main: Figure, seconds: float) -> None:
        """The line that a finished step leaves, with the task's main figure."""
        parts = [title]
        if row is not None:
            if main.name in row.figures:
                name = main.name.replace("_", " ")
                parts.append(f"{name} {shown_as(main)(row.figures[main.name])}")
            if row.size_mb is not None:
                parts.append(f"{row.size_mb:.3g} MB")
            if row.latency_ms is not None:
                parts.append(f"{row.latency_ms:.3g}{MARK if row.disturbed else ''} ms")
        self.say("  ".join([*parts, f"{seconds:.1f} s"]))


@attrs.define
class Lines:
    """In the place of a bar, where stderr is no terminal: a line every minute."""

    _reporter: Reporter
    _title: str
    _start: float
    _told: float = attrs.field(init=False)
    _loss: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._told = self._start

    def update(self, done: int, total: int, loss: float | None) -> None:
        """Says how far the step is, if a minute has gone since it last did."""
        self._loss = self._loss if loss is None else loss
        now = self._reporter.clock()
        if now - self._told < _MINUTE:
            return
        self._told = now
        left = (now - self._start) / done * (total - done)
        parts = [self._title, f"{done / total:.0%}"]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.3f}")
        self._reporter.say("  ".join([*parts, f"{math.ceil(left / _MINUTE)} min left"]))


@attrs.define
class Bar:
    """The bar of the step at work."""

    _progress: Progress
    _task: int
    _lines: Lines | None

    def update(self, done: int, total: int, loss: float | None = None) -> None:
        """Moves the bar; a loss is shown behind it."""
        note = {} if loss is None else {"note": f"loss {loss:.3f}"}
        if self._lines is not None:
            self._lines.update(done, total, loss)
        self._progress.update(self._task, completed=done, total=total, **note)  # type: ignore[arg-type]
