"""The faults of a recipe, collected so that all are told at once."""

from __future__ import annotations

from micronet.errors import RecipeError


class Faults:
    """What is wrong with a recipe; parts of it that do not depend on each other go on.

    Attributes:
        modules: The user's own that faults were found in; what does not load is told once.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._found: list[RecipeError] = []

    def add(self, fault: RecipeError, cause: BaseException | None = None) -> None:
        fault.__cause__ = cause
        self._found.append(fault)

    def forget(self, cause: type[Exception]) -> None:
        """Drops the faults that such an error has caused."""
        self._found = [each for each in self._found if not isinstance(each.__cause__, cause)]

    def check(self) -> None:
        """Raises the fault, or one error that tells all of them, a line each, as they stand."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            in_order = sorted(self._found, key=lambda fault: fault.line)
            raise RecipeError("\n".join(dict.fromkeys(map(str, in_order)))) from in_order[0]
