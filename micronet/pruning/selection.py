"""How many channels of each group stay, from one threshold for the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from micronet.pruning.channels import Channels, Group
from micronet.pruning.costs import Cost
from micronet.pruning.follower import Ints

Counts: TypeAlias = Mapping[Group, int]
"""How many sets of each group stay."""

_CLOSE = 0.002
"""Of the whole cost: a budget met as nearly as this needs no more steps."""


@attrs.frozen(eq=False)
class Bundle:
    """Groups that keep as many sets as each other, most often one alone.

    Args:
        groups: Of one size.
        stay: How many of each stay, by how many of them are above the threshold, from none to all.
    """

    groups: tuple[Group, ...]
    stay: Ints

    @property
    def size(self) -> int:
        """How many sets each group has."""
        return len(self.stay) - 1

    def beside(self, count: int) -> list[int]:
        """The next smaller and the next larger number that may stay, where there are some."""
        steps = np.unique(self.stay)
        return [*steps[steps < count][-1:].tolist(), *steps[steps > count][:1].tolist()]


@attrs.frozen(eq=False)
class Selection:
    """The sets of some groups, in the order in which they go.

    Args:
        channels: Of the model.
        bundles: Of the groups that may become smaller.
        scores: For each set of the model, how much it matters.
    """

    channels: Channels
    bundles: Sequence[Bundle]
    scores: NDArray[np.float64]

    def by_number(self, fraction: float) -> Counts:
        """What stays above a threshold that a fraction of all sets lies below."""
        order = self._order()
        return self._by_group(self._above(order, round(len(order) * fraction)))

    def by_cost(self, cost: Cost, removed: float) -> Counts:
        """What stays when so much of a cost goes, or as near to it as can be.

        The threshold comes by bisection; from there single bundles keep more or fewer, since layers
        of few channels, or with a multiple to keep, make its steps coarse.

        Args:
            cost: Whose estimates are taken.
            removed: In its unit.
        """
        order, estimate = self._order(), self._estimates(cost)
        whole = estimate(np.array([bundle.size for bundle in self.bundles]))

        def missed(counts: Ints) -> float:
            return abs(whole - estimate(counts) - removed)

        low, high = 0, len(order)
        while high - low > 1:
            middle = (low + high) // 2
            enough = whole - estimate(self._above(order, middle)) >= removed
            low, high = (low, middle) if enough else (middle, high)
        counts = min((self._above(order, k) for k in (low, high)), key=missed)
        while missed(counts) > _CLOSE * whole:
            nearest = min(self._beside(counts), key=missed, default=counts)
            if missed(nearest) >= missed(counts):
                break
            counts = nearest
        return self._by_group(counts)

    def _order(self) -> Ints:
        sets = np.concatenate([group.sets for b in self.bundles for group in b.groups])
        return sets[np.argsort(self.scores[sets], kind="stable")]

    def _above(self, order: Ints, removed: int) -> Ints:
        """How many sets stay in each group of each bundle when so many are below the threshold."""
        above = np.zeros(len(self.scores), bool)
        above[order[removed:]] = True
        numbers = [np.mean([above[group.sets].sum() for group in b.groups]) for b in self.bundles]
        return np.array([b.stay[round(n)] for b, n in zip(self.bundles, numbers, strict=True)])

    def _beside(self, counts: Ints) -> list[Ints]:
        """The same counts, with one bundle a step further."""
        found = []
        for index, bundle in enumerate(self.bundles):
            for count in bundle.beside(int(counts[index])):
                found.append(counts.copy())
                found[-1][index] = count
        return found

    def _by_group(self, counts: Ints) -> Counts:
        return {
            group: int(count)
            for bundle, count in zip(self.bundles, counts, strict=True)
            for group in bundle.groups
        }

    def _estimates(self, cost: Cost) -> Callable[[Ints], float]:
        """What a model costs whose bundles keep so many."""
        bundle_of = np.full(len(self.scores), -1)
        for index, bundle in enumerate(self.bundles):
            for group in bundle.groups:
                bundle_of[group.sets] = index
        sides = list(self.channels.sides.values())
        channels = np.zeros((len(sides), len(self.bundles)))
        fixed = np.empty(len(sides))
        for row, side in enumerate(sides):
            own = bundle_of[side.of(self.channels.set_of)]
            fixed[row] = (own < 0).sum()
            channels[row] = np.bincount(own[own >= 0], minlength=len(self.bundles))
        per_set = channels / [bundle.size for bundle in self.bundles]
        keys = [side.key for side in sides]

        def estimate(counts: Ints) -> float:
            widths = fixed + per_set @ counts
            return cost.estimate(self.channels, dict(zip(keys, widths.tolist(), strict=True)))

        return estimate
