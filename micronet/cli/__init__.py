"""The `micronet` command: how it begins and ends.

Progress, logs and errors go to stderr, results to stdout. Exit codes: 0 done, 1 a fault in
micronet or a plugin, 2 something the user can mend, 130 interrupted. Nothing is imported before
`main` waits for interrupts.
"""

import os
import signal
import sys
from typing import NoReturn

_INTERRUPTED = 130


def _put_working_folder_last() -> None:
    """`python -m` puts it first, where a file in it would hide an installed module."""
    try:
        here = os.getcwd()  # noqa: PTH109 (as Python writes it)
    except FileNotFoundError:  # somebody removed it
        here = ""
    if sys.path[0] in ("", here):
        sys.path.append(sys.path.pop(0))


def main() -> NoReturn:
    """Entry point of the `micronet` script."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    _put_working_folder_last()
    if "RANK" in os.environ:  # of several, each would print torch's advice on unused layers
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        from micronet.streams import take_over

        take_over()
        from micronet.cli.commands import app

        app(arguments)
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever can't wait ends it at once
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises there what is told below
        status = _told(error, traceback=len(arguments) < len(sys.argv) - 1)
        if status is None:  # one of typer's exits, or a fault of ours
            raise
        sys.exit(status)
    sys.exit(0)


def _told(error: BaseException, *, traceback: bool) -> int | None:
    """Says on stderr what ended a command, and gives the exit code; `None` if it has no words."""
    from micronet.errors import WriteError, in_words
    from micronet.streams import close_stdout, say

    close_stdout()  # it may be what failed
    if _is_interrupt(error):
        say("Interrupted. What is finished is kept; the same command goes on.")
        return _INTERRUPTED
    told = in_words(error)
    if told is None:
        return None
    if traceback:
        from traceback import print_exception

        print_exception(error)
    goes_on = " Finished steps are kept; mend it, and the same command goes on."
    for line in f"{told}{goes_on if isinstance(told, WriteError) else ''}".split("\n"):
        say(f"micronet: {line}")
    return 2


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an interrupt is behind an error: a module that it stops may raise another."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
