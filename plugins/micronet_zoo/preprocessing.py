"""What the data sets of the user's own images share; imports nothing heavy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from micronet.errors import OptionError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN_DOC = "What is subtracted from red, green and blue in 0..1; null, with std, for nothing."
STD_DOC = "What red, green and blue are divided by after that."

Augmentation = Literal["crop", "flip", "colour"]

Statistics = tuple[float, float, float]


NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""Of images in 0..1 from which nothing is subtracted."""


def check_statistics(mean: Statistics | None, std: Statistics | None) -> None:
    """Raises OptionError unless there are both or neither, and they can be used."""
    if (mean is None) != (std is None):
        missing = "mean" if mean is None else "std"
        raise OptionError("mean and std need each other; give both, or null for both.", missing)
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and not all(map(math.isfinite, values)):
            raise OptionError(f"{name} must hold finite numbers, got {list(values)}.", name)
    if std is not None and min(std) <= 0:
        raise OptionError(f"std must hold numbers above 0, got {list(std)}.", "std")


def check_path(text: str, option: str, kind: Literal["file", "folder"]) -> None:
    """Raises OptionError unless a path is there and of that kind."""
    if not is_there(text, option, kind):
        raise OptionError(f"{option} must be a {kind}, and {text!r} is none.", option)


def is_there(text: str, option: str, kind: Literal["file", "folder"]) -> bool:
    """Whether a path is there and of that kind; raises OptionError if that can't be told."""
    try:
        path = Path(text).expanduser()
        return path.is_dir() if kind == "folder" else path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, of no user, with a NUL
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise OptionError(f"{option} {text!r} can't be read: {reason}.", option) from error
