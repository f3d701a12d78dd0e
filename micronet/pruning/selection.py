"""How many channels of each group stay, from one threshold for the whole model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from micronet.errors import PruningError
from micronet.pruning.channels import Channels, Group
from micronet.pruning.costs import Target, removed_cost

_TOLERANCE = 0.02
"""Of the model's parameters or operations: how far from what was asked the result may be."""


@attrs.frozen(eq=False)
class Selection:
    """The sets of some groups, in the order in which they go.

    Args:
        channels: Of the model.
        groups: Those that may become smaller.
        scores: For each set of the model, how much it matters.
        rounded: How many sets of a group stay when so many are above the threshold.
    """

    channels: Channels
    groups: Sequence[Group]
    scores: NDArray[np.float64]
    rounded: Callable[[Group, int], int]

    def counts(self, fraction: float, target: Target, total: float) -> list[int]:
        """For each group, how many sets stay.

        Args:
            fraction: Of what `target` means, to be removed.
            target: The fraction of all sets that the threshold lies above, or the fraction of
                parameters or operations that go.
            total: All parameters or operations of the model.

        Raises:
            PruningError: So much can't go.
        """
        sets = np.concatenate([group.sets for group in self.groups])
        order = sets[np.argsort(self.scores[sets], kind="stable")]
        if target == "channels":
            return self._counts(order, round(len(order) * fraction))
        low, high = 0, len(order)
        most = removed_cost(self.channels, self._kept(order, high), target)
        if most < (fraction - _TOLERANCE) * total:
            raise PruningError(
                f"The model can lose at most {most / total:.1%} of its {target}, not "
                f"{fraction:.1%}: some layers must stay, and each keeps some channels."
            )
        while high - low > 1:
            middle = (low + high) // 2
            removed = removed_cost(self.channels, self._kept(order, middle), target)
            low, high = (middle, high) if removed < fraction * total else (low, middle)
        costs = [removed_cost(self.channels, self._kept(order, k), target) for k in (low, high)]
        nearer = int(abs(costs[1] - fraction * total) < abs(costs[0] - fraction * total))
        return self._counts(order, (low, high)[nearer])

    def _counts(self, order: NDArray[np.int64], removed: int) -> list[int]:
        above = np.zeros(len(self.scores), bool)
        above[order[removed:]] = True
        return [self.rounded(group, int(above[group.sets].sum())) for group in self.groups]

    def _kept(self, order: NDArray[np.int64], removed: int) -> NDArray[np.bool_]:
        """For each set of the model, whether it stays."""
        kept = np.ones(len(self.scores), bool)
        for group, count in zip(self.groups, self._counts(order, removed), strict=True):
            kept[best(group, self.scores, count)] = True
            kept[np.setdiff1d(group.sets, best(group, self.scores, count))] = False
        return kept


def best(group: Group, scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The sets of a group with the highest scores; of equal ones the last."""
    return group.sets[np.argsort(scores[group.sets], kind="stable")][len(group.sets) - count :]
