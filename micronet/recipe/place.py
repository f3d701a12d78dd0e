"""Where a recipe was written, for the messages: in a file, in Python, or on the command line."""

from __future__ import annotations

from pathlib import Path

from micronet.errors import RecipeError
from micronet.recipe.file import Source
from micronet.recipe.plain_yaml import Key


class Nowhere:
    """Stands for the source of a recipe that was made in Python."""

    folder = Path()

    def error(self, key: Key, message: str) -> RecipeError:
        return RecipeError(f"{'.'.join(map(str, key)) or 'recipe'}: {message}")


class Command(Nowhere):
    """Stands for a command's options, which the message names itself."""

    def error(self, _key: Key, message: str) -> RecipeError:
        return RecipeError(message)


Place = Source | Nowhere
"""Where a fault is told to stand."""
