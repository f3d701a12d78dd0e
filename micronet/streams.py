"""The process's standard streams: stdout is for results alone, and a lost stderr ends nothing.

Plugins, users' code and libraries print as they like, also at exit and from processes that they
start; what they print goes to stderr.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from micronet.errors import printable

_STDIN, _STDOUT, _STDERR = range(3)
_results: TextIO | None = None


def take_over() -> None:
    """Keeps stdout for `results`, for the rest of the process; file descriptor 1 leads to stderr.

    `sys.stdout` still is where results go, until `close_stdout`.
    """
    global _results  # noqa: PLW0603 (a process has one stdout)
    if _results is None:
        _open_missing()
        before = sys.stdout or io.TextIOWrapper(io.BytesIO())
        before.flush()
        _results = io.TextIOWrapper(
            io.BufferedWriter(_Results(os.dup(_STDOUT), "w")),
            encoding=before.encoding,
            errors="backslashreplace" if before.errors == "strict" else before.errors,
        )
        os.dup2(_STDERR, _STDOUT)
        sys.stderr = _lossy(_STDERR)
    sys.stdout = _results


def close_stdout() -> None:
    """Lets `sys.stdout` lead to stderr too, before anybody else's code may run."""
    sys.stdout = _lossy(_STDOUT)


def give_back() -> None:
    """Lets file descriptor 1 be stdout again, for a program that takes this one's place."""
    if _results is not None:
        os.dup2(_results.fileno(), _STDOUT)


def results() -> TextIO:
    """Where results go."""
    return _results or sys.stdout


def say(text: str) -> None:
    """A line on stderr."""
    print(printable(text), file=sys.stderr)


@contextlib.contextmanager
def stdout_on_stderr() -> Iterator[None]:
    """Inside, what anybody prints, be it a process that starts here, goes to stderr."""
    _open_missing()
    if sys.stdout is not None:
        sys.stdout.flush()
    kept, kept_stderr = os.dup(_STDOUT), os.dup(_STDERR)
    os.dup2(_STDERR, _STDOUT)
    try:
        with contextlib.redirect_stdout(_lossy(_STDERR)):  # its own: a wrapper may close it
            yield
    finally:
        if sys.__stdout__ is not None:
            with contextlib.suppress(OSError, ValueError):  # full, or closed by whom it was lent to
                sys.__stdout__.flush()
        for copy, stream in ((kept, _STDOUT), (kept_stderr, _STDERR)):
            os.dup2(copy, stream)
            os.close(copy)


def _open_missing() -> None:
    """Gives the null device to the streams that are closed, lest the next file becomes one."""
    for stream in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _lossy(descriptor: int) -> TextIO:
    before = sys.__stderr__
    return io.TextIOWrapper(
        io.BufferedWriter(_Lossy(descriptor, "w", closefd=False)),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


class _Results(io.FileIO):
    """Stdout, which an error calls by that name."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "stdout"
            raise


class _Lossy(io.FileIO):
    """Loses what can't be written: its reader is gone, or its disk is full."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = 0
        return written or memoryview(data).nbytes
