"""The one family of errors that micronet raises on purpose.

Each message is a sentence for the person who has to act on it: what was found, what is allowed,
what to do. The command line prints it and exits with 2; Python code catches `MicronetError`.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


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


class RunError(MicronetError):
    """A run that can't start or go on in its folder, or whose numbers went wrong."""


class QuantizationError(MicronetError):
    """A model, or a moment in its life, that a quantizer can't work with."""


class PruningError(MicronetError):
    """A model that can't be pruned as asked."""


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


def describe_error(error: BaseException) -> str:
    """Another's error as the tail of a sentence: its type, and the first line of its message."""
    lines = str(error).strip().splitlines()
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
