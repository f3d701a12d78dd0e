"""A recipe as far as it can be read: what is faulty in it is left open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from micronet.recipe.steps import Named, Recipe, Step

DraftStep = Step | type[Any] | None
"""A step, its class alone where it lacks its technique, `None` where no step is meant."""


@attrs.frozen(kw_only=True)
class Draft:
    """The parts of a `Recipe`, `None` where they are faulty."""

    model: Named | None
    data: Named | None
    task: Named | None
    steps: Sequence[DraftStep]
    weights: str | None
    seed: int
    requires: Sequence[str]

    @staticmethod
    def of(recipe: Recipe) -> Draft:
        return Draft(**attrs.asdict(recipe, recurse=False))

    def recipe(self) -> Recipe:
        """The recipe of a draft without faults."""
        assert self.model is not None
        assert self.data is not None
        assert self.task is not None
        steps = [step for step in self.steps if step is not None and not isinstance(step, type)]
        assert len(steps) == len(self.steps)
        return Recipe(**{**attrs.asdict(self, recurse=False), "steps": steps})
