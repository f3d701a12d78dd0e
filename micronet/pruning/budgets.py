"""Plans that come nearest to what is to be removed."""

from __future__ import annotations

import attrs

from micronet.errors import PruningError
from micronet.pruning import PruningPlan, apply_plan
from micronet.pruning.costs import Cost
from micronet.pruning.planner import Planner, described
from micronet.pruning.selection import Counts

TOLERANCE = 0.02
"""Of the whole cost: what a budget may be missed by without a word."""
_CLOSE = 0.005
"""Of the whole cost: a budget met as nearly as this is not tried again."""
_ATTEMPTS = 5


@attrs.frozen
class Outcome:
    """A plan and what it does.

    Args:
        plan: What stays in each layer.
        counts: Of each group that may become smaller, how many sets stay.
        went: The fraction of the cost, or of the channels that can be removed, that goes.
    """

    plan: PruningPlan
    counts: Counts
    went: float


def of_channels(planner: Planner, fraction: float) -> Outcome:
    """Removes a fraction of the channels that can be removed; raises as `of_cost` does."""
    plan, counts = planner.plan(lambda selection: selection.by_number(fraction))
    sets = sum(len(group.sets) for group in counts)
    return Outcome(plan, counts, 1 - sum(counts.values()) / sets)


def of_cost(planner: Planner, cost: Cost, fraction: float) -> Outcome:
    """Removes a fraction of a cost, as nearly as can be, by what the smaller model itself costs.

    Where the estimates do not foresee that, they are asked for more or less.

    Args:
        planner: For the model.
        cost: To bring down.
        fraction: Of it, to be removed.

    Raises:
        PruningError: So much can't go, or nothing can.
    """
    whole = cost.measure(planner.model, planner.example_inputs)

    def attempt(asked: float) -> Outcome:
        plan, counts = planner.plan(lambda selection: selection.by_cost(cost, asked * whole))
        smaller = cost.measure(apply_plan(planner.model, plan), planner.example_inputs)
        return Outcome(plan, counts, 1 - smaller / whole)

    asked, found = fraction, [(0.0, 0.0)]
    outcomes: list[Outcome] = []
    while len(outcomes) < _ATTEMPTS:
        outcome = attempt(asked)
        repeated = any(outcome.counts == earlier.counts for earlier in outcomes)
        outcomes.append(outcome)
        if repeated or abs(outcome.went - fraction) <= _CLOSE:
            break
        found.append((asked, outcome.went))
        asked = _next(found, fraction)
    best = min(outcomes, key=lambda outcome: abs(outcome.went - fraction))
    if best.went < fraction - TOLERANCE:
        most = attempt(1)
        if most.went < fraction - TOLERANCE:
            raise PruningError(
                f"The model can lose at most {most.went:.1%} of its {cost.name}, not "
                f"{fraction:.1%}: each layer keeps some channels, and these stay whole: "
                f"{described(planner.reasons)}."
            )
    return best


def _next(found: list[tuple[float, float]], wanted: float) -> float:
    """What to ask for next, on the line through the points beside: what was asked, what went."""
    below = max((point for point in found if point[1] < wanted), key=lambda point: point[1])
    above = min((p for p in found if p[1] >= wanted), key=lambda p: p[1], default=None)
    if above is None:
        return min(below[0] * wanted / below[1], 1.0) if below[1] > 0 else 1.0
    step = (wanted - below[1]) / (above[1] - below[1])
    return below[0] + step * (above[0] - below[0])
