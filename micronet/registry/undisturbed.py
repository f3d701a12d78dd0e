"""What belongs to the whole process, put back after a plugin's code has run."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts back the environment, the current folder, handlers of signals and logs, and the like.

    Folders that the block puts on the path stay, behind those that were there.
    """
    environment, folder, path = dict(os.environ), _current_folder(), sys.path[:]
    importing = sys.meta_path[:], sys.path_hooks[:]
    root = logging.getLogger()
    logs, level, disabled = root.handlers[:], root.level, root.manager.disable
    hook, depth = sys.excepthook, sys.getrecursionlimit()
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.setrecursionlimit(depth)
        sys.excepthook = hook
        sys.path[:] = [*path, *(added for added in sys.path if added not in path)]
        sys.meta_path[:], sys.path_hooks[:] = importing
        if folder is not None and _current_folder() != folder:
            os.chdir(folder)
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)
        root.handlers[:], root.manager.disable = logs, disabled
        root.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    with suppress(OSError, ValueError):  # some take no handler
                        signal.signal(number, handler)


def _current_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (as the system has it)
    except FileNotFoundError:  # somebody removed it
        return None
