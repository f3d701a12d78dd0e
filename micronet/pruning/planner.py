"""From thresholds to plans that the model's code allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from micronet.errors import NothingPrunedError, PruningError
from micronet.pruning import PruningPlan
from micronet.pruning.channels import Channels, Group
from micronet.pruning.follower import Ints
from micronet.pruning.removal import Misfit, plan_of
from micronet.pruning.selection import Bundle, Counts, Selection

Reasons: TypeAlias = dict[Group, str]
_NAMED = 3
"""How many layers a message names before it counts the others."""


@attrs.define(eq=False)
class Planner:
    """Makes plans, and learns with each what the model's code asks for.

    Args:
        model: The large model.
        example_inputs: What its forward takes.
        channels: Of the model.
        scores: For each set, how much it matters; the lowest go first.
        rounded: How many sets of a group stay when so many are above the threshold.
        least: For each group, the smallest number of sets that may stay.
        reasons: For each group that stays whole, why.
        tied: For a group, those that must keep as many sets as it does, itself among them; from
            the start those whose numbers the code takes for each other.
    """

    model: nn.Module
    example_inputs: tuple[Tensor, ...]
    channels: Channels
    scores: NDArray[np.float64]
    rounded: Callable[[Group, int], int]
    least: dict[Group, int]
    reasons: Reasons
    tied: dict[Group, tuple[Group, ...]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tied = dict(self.channels.equal)

    def plan(self, choose: Callable[[Selection], Counts]) -> tuple[PruningPlan, Counts]:
        """The plan of what is chosen, and how many sets stay of each group that may shrink.

        Args:
            choose: Chooses among the groups that may become smaller; called again where the
                model's code does not take its choice.

        Raises:
            NothingPrunedError: No group may become smaller.
            PruningError: The model's code takes no smaller model.
        """
        while True:
            counts = choose(Selection(self.channels, self.bundles(), self.scores))
            try:
                plan = plan_of(
                    self.model,
                    self.example_inputs,
                    self.channels,
                    list(counts.items()),
                    self.scores,
                )
            except Misfit as misfit:
                if not misfit.groups:
                    raise PruningError(f"The model can't be pruned: {misfit.reason}.") from misfit
                self._learn(misfit, counts)
            else:
                return plan, counts

    def bundles(self) -> list[Bundle]:
        """The groups that may become smaller; raises NothingPrunedError where there are none."""
        self._spread_reasons()
        tied = {
            tuple(g for g in self.tied.get(group, (group,)) if g not in self.reasons): None
            for group in self.channels.groups
            if group not in self.reasons
        }
        found = []
        for groups in tied:
            stay, size = self._stay(groups), len(groups[0].sets)
            if stay.min() < size:
                found.append(Bundle(groups, stay))
                continue
            reason = (
                "none of its channels can go without all others"
                if size == 1
                else f"it has {size} channels, and no fewer may stay"
            )
            self.reasons.update(dict.fromkeys(groups, reason))
        if not found:
            told = described(self.reasons) or "it has none"
            raise NothingPrunedError(f"No layer can be pruned: {told}.")
        return found

    def _spread_reasons(self) -> None:
        """Groups stay whole whose number is taken for that of one that does."""
        for equal in dict.fromkeys(self.channels.equal.values()):
            whole = next((other for other in equal if other in self.reasons), None)
            if whole is not None:
                name, why = whole.layers[0], self.reasons[whole]
                spread = f"the code takes their number for that of {name!r}, and there {why}"
                for group in equal:
                    self.reasons.setdefault(group, spread)

    def _stay(self, groups: tuple[Group, ...]) -> Ints:
        """How many sets of each group stay for each number of them above the threshold."""
        size = len(groups[0].sets)
        each = [
            np.array([self.rounded(group, above) for above in range(size + 1)]) for group in groups
        ]
        least = max(self.least.get(group, 1) for group in groups)
        allowed = reduce(np.intersect1d, each)
        allowed = allowed[allowed >= least] if (allowed >= least).any() else np.array([size])
        nearest = np.abs(each[0][:, None] - allowed).argmin(1)
        stay: Ints = allowed[nearest]
        return stay

    def _learn(self, misfit: Misfit, counts: Counts) -> None:
        """Makes the next attempt another one.

        Groups of one layer keep as many as each other: code that splits its channels into halves
        may need halves of one size. A group keeps the next number that its parts allow where an
        uneven shuffle was the trouble, or a single channel, which does not show what it is coupled
        with. Else it stays whole.
        """
        for group in misfit.groups:
            beside = [
                other
                for other in counts
                if len(other.sets) == len(group.sets) and set(other.layers) & set(group.layers)
            ]
            more = counts[group] + group.unit
            few = misfit.larger and (group.unit > 1 or counts[group] == 1)
            if len({counts[other] for other in beside}) > 1:
                self._tie(beside)
            elif few and more < len(group.sets):
                self.least[group] = more
            else:
                self.reasons[group] = misfit.reason

    def _tie(self, groups: list[Group]) -> None:
        """Ties groups, and what they are tied with already."""
        ties = {other for group in groups for other in self.tied.get(group, (group,))}
        tied = tuple(group for group in self.channels.groups if group in ties)
        self.tied.update(dict.fromkeys(tied, tied))


def described(reasons: Mapping[Group, str]) -> str:
    """Each reason once, with the layers that it holds for."""
    layers: dict[str, list[str]] = {}
    for group, reason in reasons.items():
        layers.setdefault(reason, []).extend(group.layers)
    return "; ".join(f"{_some(names)}: {reason}" for reason, names in layers.items())


def _some(names: list[str]) -> str:
    if len(names) <= _NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
