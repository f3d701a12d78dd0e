"""What a run tells while it works, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
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
from micronet.pipeline.results import Row


@attrs.define
class Reporter:
    """One progress bar for each step, and one line when it is done.

    Args:
        console: Where to write.
        enabled: False for the other processes of a distributed run.
    """

    console: Console
    enabled: bool = True

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
            yield Bar(progress, task)

    @property
    def _shows_bars(self) -> bool:
        return self.enabled and self.console.is_terminal

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.enabled:
            self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def done(self, title: str, row: Row | None, seconds: float) -> None:
        """The line that a finished step leaves."""
        parts = [title]
        if row is not None:
            if row.accuracy is not None:
                parts.append(f"accuracy {row.accuracy * 100:.2f}%")
            if row.size_mb is not None:
                parts.append(f"{row.size_mb:.3g} MB")
            if row.latency_ms is not None:
                parts.append(f"{row.latency_ms:.3g}{MARK if row.disturbed else ''} ms")
        self.say("  ".join([*parts, f"{seconds:.1f} s"]))


@attrs.define
class Bar:
    """The bar of the step at work."""

    _progress: Progress
    _task: int

    def update(self, done: int, total: int, loss: float | None = None) -> None:
        """Moves the bar; a loss is shown behind it."""
        note = {} if loss is None else {"note": f"loss {loss:.3f}"}
        self._progress.update(self._task, completed=done, total=total, **note)  # type: ignore[arg-type]
