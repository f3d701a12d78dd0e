"""What a graph takes for granted, and how it says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from micronet.errors import MicronetError

_TORCH, _HERE = str(Path(torch.__file__).parent), str(Path(__file__).parent)


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


def place_in_code() -> str:
    """The line of the user's code that is at work."""
    frame = sys._getframe(1)  # noqa: SLF001
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _HERE)):
            return f"what {frame.f_code.co_name} asks at {Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "what the model asks"
