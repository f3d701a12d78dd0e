"""What a graph takes for granted, and how it says so."""

from __future__ import annotations

from typing import Any

from micronet.errors import MicronetError


class TracingError(MicronetError):
    """The model can't be followed into a graph; the message says why."""


class SpecializationError(MicronetError):
    """A graph was called with inputs on which the model would have taken another way."""


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return repr(value) if shape is None else f"a tensor {list(shape)}"


def changed_by(tensor: Any, _operation: Any) -> Any:
    """A tensor as it is after an operation that changed it through a view, or a view of it."""
    return tensor


def require(actual: Any, expected: Any, what: str) -> None:
    """Raises where a value that decided the way of a forward pass has changed since.

    Args:
        actual: The value now.
        expected: The value when the model was followed.
        what: Where the model asked for it.

    Raises:
        SpecializationError: They differ.
    """
    if actual != expected:
        raise SpecializationError(
            f"The model was followed with example inputs for which {what} was {_shown(expected)}; "
            f"now it is {_shown(actual)}, so the model would compute something else. Prepare it "
            f"with example inputs like these."
        )
