"""How much of which layers must stay, as a user says it."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence

import attrs
import numpy as np
from torch import nn

from micronet.errors import PruningError, nearest
from micronet.pruning.channels import Channels, Group
from micronet.pruning.follower import WEIGHTED, Side


@attrs.frozen
class Rule:
    """What must stay of layers.

    Args:
        pattern: The layers' names, as in "layer1.*". One that names no layer with weights of its
            own is about others that channels go through, such as batch norms.
        most: The largest fraction of each one's channels that may go.
        least: The smallest number of its channels that stays.
        reason: Why layers stay whole of which nothing may go.
    """

    pattern: str
    most: float
    least: int
    reason: str

    def stays(self, size: int) -> float:
        """The fraction of a layer's channels that must stay."""
        return max(1 - self.most, min(self.least / size, 1))


@attrs.frozen
class Floor:
    """How many sets of a group must stay, and why."""

    sets: int
    rule: Rule


def floors(model: nn.Module, channels: Channels, rules: Sequence[Rule]) -> dict[Group, Floor]:
    """For each group that rules are about, the strictest; the first of equal ones.

    Raises:
        PruningError: A rule's pattern names no layer.
    """
    group_of: dict[int, Group] = {n: g for g in channels.groups for n in g.sets.tolist()}
    found: dict[Group, Floor] = {}
    for rule in rules:
        for side in _named(model, channels, rule):
            stays = rule.stays(side.size)
            sets = np.unique(side.of(channels.set_of)).tolist()
            for group in {group_of[number]: None for number in sets if number in group_of}:
                number = math.ceil(len(group.sets) * stays - 1e-9)
                if group not in found or number > found[group].sets:
                    found[group] = Floor(number, rule)
    return found


def _named(model: nn.Module, channels: Channels, rule: Rule) -> list[Side]:
    passed = [side for side in channels.sides.values() if side.role != "inputs"]
    weighted = [side for side in passed if isinstance(side.layer, WEIGHTED)]
    for sides in (weighted, passed):
        named = [side for side in sides if fnmatch.filter(side.names, rule.pattern)]
        if named:
            return named
    modules = {name: module for name, module in model.named_modules() if name}
    unreached = [name for name, module in modules.items() if isinstance(module, WEIGHTED)]
    if not fnmatch.filter(unreached, rule.pattern):
        known = [*unreached, *(name for side in passed for name in side.names)]
        inner = any(name.startswith(f"{rule.pattern}.") for name in known)
        hint = f" Did you mean '{rule.pattern}.*'?" if inner else nearest(rule.pattern, known)
        option = rule.reason.partition(" ")[0]
        raise PruningError(
            f"{option} names no layer of the model that has channels: {rule.pattern!r}.{hint}"
        )
    return []
