"""The one family of errors that micronet raises on purpose.

Each message is a sentence for the person who has to act on it: what was found, what is allowed,
what to do. The command line prints it and exits with 2; Python code catches `MicronetError`.
"""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal


class MicronetError(Exception):
    """Anything micronet refuses or could not do, said in words."""


class OptionError(MicronetError, ValueError):
    """An option that does not exist, or whose value is not allowed.

    Args:
        message: The sentence shown to the user.
        option: The culprit's name, so that a recipe can point to its line.
        others: What else is wrong with the same options.
    """

    def __init__(
        self, message: str, option: str | None = None, others: Sequence["OptionError"] = ()
    ) -> None:
        super().__init__(message)
        self.option = option
        self.others = tuple(others)


class PluginError(MicronetError):
    """A technique that is unknown, ambiguous or whose plugin does not load."""


class RecipeError(MicronetError):
    """A recipe that can't be run as written.

    Args:
        message: A sentence for each fault, each on a line of its own.
        line: Of the recipe, where there is one fault with a place in a file.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class DataError(MicronetError):
    """A data set or a file that is missing or can't be read."""


class WriteError(MicronetError, OSError):
    """A file or a folder that can't be written."""


class RunError(MicronetError):
    """A run that can't start or go on in its folder, or whose numbers went wrong."""


class QuantizationError(MicronetError):
    """A model, or a moment in its life, that a quantizer can't work with."""


class PruningError(MicronetError):
    """A model that can't be pruned as asked."""


class NothingPrunedError(PruningError):
    """A model that would stay as it is."""


class DeployError(MicronetError):
    """An engine that is missing, refuses the model, or does not agree with it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Says which known name is meant, as the tail of a sentence; empty if none is close.

    >>> nearest("qantizer", ["quantizer", "pruner"])
    " Did you mean 'quantizer'?"
    """
    by_small = {word.casefold(): word for word in reversed(list(known))}
    matches = difflib.get_close_matches(name.casefold(), list(by_small), n=1, cutoff=0.55)
    return f" Did you mean {by_small[matches[0]]!r}?" if matches else ""


def listed(names: Iterable[str]) -> str:
    """The names in a row for a sentence: `a, b, c`, or `none`."""
    return ", ".join(names) or "none"


def message_of(error: BaseException) -> str:
    """What an error says; nothing if its author's `__str__` raises one itself."""
    try:
        return str(error).strip()
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever its author's code raises
        return ""


def describe_error(error: BaseException) -> str:
    """Another's error as the tail of a sentence: its type, and the first line of its message."""
    lines = message_of(error).splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


@contextmanager
def blaming(what: str, kind: type[MicronetError] = DataError) -> Iterator[None]:
    """Tells whatever a user's code raises as its fault, a `sys.exit` too; an interrupt passes.

    Args:
        what: How the sentence begins, as in `shop:data fails`.
        kind: The error to raise.
    """
    try:
        yield
    except (MicronetError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's code may raise anything
        raise kind(f"{what}: {describe_error(error)}.") from error


def in_words(error: BaseException) -> MicronetError | None:
    """The error of ours that tells of another; `None` where that is a fault of somebody's code."""
    if isinstance(error, MicronetError):
        return error
    if isinstance(error, RuntimeError):
        return lost_worker(error)
    return refusal(error) if isinstance(error, OSError) and error.strerror else None


def lost_worker(error: Exception) -> DataError | None:
    """What to do if a process that loads data was killed.

    Torch tells so at any moment, or fails to fetch what the process has left.
    """
    lost = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    if not lost and not isinstance(error, (OSError, EOFError)):
        return None
    return DataError(
        f"Reading the data fails: {describe_error(error)}. A process that loads data may have been "
        f"killed for lack of memory: try fewer workers, or workers: 0."
    )


def refusal(
    error: OSError,
    path: os.PathLike[str] | str | None = None,
    *,
    use: Literal["read", "write"] | None = None,
) -> MicronetError:
    """What the system refuses, as an error that names the path and what is wrong with it.

    Args:
        error: The system's.
        path: As the user knows it; by default the error's own.
        use: What was tried; by default what the error alone tells.
    """
    where = error.filename if path is None else os.fspath(path)
    reason = f"{error.strerror or describe_error(error)}{_WAYS_ON.get(error.errno or 0, '')}"
    if use == "write" or (use is None and error.errno in _OF_WRITING):
        refused = WriteError(f"Can't write{f' {where}' if where else ''}: {reason}.")
        refused.errno = error.errno
        return refused
    if use == "read":
        return DataError(f"{where} can't be read: {reason}.")
    return MicronetError(f"Can't use {where}: {reason}." if where else f"{reason}.")


_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_WAYS_ON = {
    errno.EEXIST: "; a part of the path is no folder",
    errno.EMFILE: "; raise the limit of this process with ulimit -n",
    errno.ENFILE: "; raise the limit of this machine, or end other programs",
}


def printable(text: str) -> str:
    r"""A text without what a terminal would obey: control characters, and those that turn lines.

    >>> printable("\x1b[2Jfine")
    '\\x1b[2Jfine'
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


_SHOWN = 60
"""Characters of a value that a message shows."""


def describe_value(value: object) -> str:
    """What a value is, for a message: a number or a text itself, anything else by its kind."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and len(shape):
        kind = "a tensor" if hasattr(value, "requires_grad") else f"an {type(value).__name__}"
        return f"{kind} of {str(dtype).removeprefix('torch.')} {list(shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if not (isinstance(value, (int, float, str)) or dtype is not None):
        return f"an object of type {type(value).__name__}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
