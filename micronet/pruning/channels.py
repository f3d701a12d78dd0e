"""Which channels of which layers live and die together."""

from __future__ import annotations

import hashlib
import math

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from micronet.pruning.follower import WEIGHTED, Ints, Key, Side, Trace
from micronet.pruning.tracing import follow_into, trace


@attrs.frozen(eq=False)
class Group:
    """Sets of coupled channels that lie in the same layers; each set stays or goes as one.

    Args:
        layers: Names of the layers that give the channels.
        sets: Their numbers, ascending.
        unit: The number that stays must be a multiple of it, so that equal parts remain.
        convolutions: Names of the group convolutions among the layers that give or take them.
        reason: Why the group must stay whole; `None` if it need not.
    """

    layers: tuple[str, ...]
    sets: Ints
    unit: int
    convolutions: tuple[str, ...]
    reason: str | None


@attrs.frozen(eq=False)
class Channels:
    """A model's channels.

    Args:
        sides: The outputs and inputs of its layers.
        set_of: For each channel, the number of the set that it is coupled in.
        kinds: For each set, what tells the layers, and the parts of layers, that it lies in.
        groups: The sets that a layer gives.
        positions: See `Trace`.
        depthwise: See `Trace`.
        standardised: See `Trace`.
        equal: For a group, those whose number the model's code takes for its own, itself among
            them.
        factors: See `Trace`.
        counters: See `Trace`.
    """

    sides: dict[Key, Side]
    set_of: Ints
    kinds: NDArray[np.uint64]
    groups: list[Group]
    positions: dict[str, float]
    depthwise: set[str]
    standardised: set[str]
    equal: dict[Group, tuple[Group, ...]]
    factors: dict[tuple[str, int], tuple[float, Ints]]
    counters: dict[str, list[tuple[int, Ints]]]

    @classmethod
    def of(cls, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Channels:
        """Raises `tracing.Failure` where the model does not run."""
        return cls._from_trace(trace(model, example_inputs))

    def of_smaller(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Channels:
        """Of the same model with fewer channels.

        A group convolution may have one channel in each group by now, and is none the less taken
        for one.
        """
        found = Trace(depthwise=self.depthwise)
        return self._from_trace(follow_into(found, model, example_inputs))

    @classmethod
    def _from_trace(cls, found: Trace) -> Channels:
        couplings = np.concatenate([np.zeros((2, 0), np.int64), *found.couplings], axis=1)
        edges = coo_array(
            (np.ones(couplings.shape[1], np.int8), (couplings[0], couplings[1])),
            shape=(found.channels, found.channels),
        )
        _, labels = connected_components(edges, directed=False)
        # Numbered by their first channel, so that sorting by number keeps the order of channels.
        _, first, set_of = np.unique(labels, return_index=True, return_inverse=True)
        set_of = np.argsort(np.argsort(first))[set_of].astype(np.int64)
        count = int(set_of.max()) + 1
        kinds, layers = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
        for side in found.sides.values():
            own = side.of(set_of)
            parts = np.arange(side.size) * side.blocks // side.size
            np.add.at(layers, own, _mixed(*side.key, 0))
            np.add.at(
                kinds, own, np.array([_mixed(*side.key, p) for p in range(side.blocks)])[parts]
            )
        for channel, operation, place in np.concatenate(
            [np.zeros((0, 3), np.int64), *found.places]
        ):
            np.add.at(kinds, set_of[channel], _mixed("place", int(operation), int(place)))
        groups = _groups(found, set_of, layers)
        equal = _equal(found, set_of, groups)
        return cls(
            found.sides,
            set_of,
            kinds,
            groups,
            found.positions,
            found.depthwise,
            found.standardised,
            equal,
            found.factors,
            found.counters,
        )


def _groups(found: Trace, set_of: Ints, layers: NDArray[np.uint64]) -> list[Group]:
    """The sets that a weighted layer gives, by the layers that they lie in."""
    given = np.zeros(len(layers), bool)
    for side in _givers(found):
        given[side.of(set_of)] = True
    _, group_of = np.unique(layers, return_inverse=True)
    sets: dict[int, list[int]] = {}
    for number in np.flatnonzero(given).tolist():
        sets.setdefault(int(group_of[number]), []).append(number)
    names = _names(_givers(found), set_of, group_of)
    grouped = [side for side in found.sides.values() if side.blocks > 1]
    convolutions = _names([s for s in grouped if isinstance(s.layer, _ConvNd)], set_of, group_of)
    units = _units(grouped, found.places, set_of, group_of)
    reasons: dict[int, str] = {}
    for channel, reason in found.locked.items():
        reasons.setdefault(int(group_of[set_of[channel]]), reason)
    return [
        Group(
            layers=tuple(names[number]),
            sets=np.array(own, np.int64),
            unit=units.get(number, 1),
            convolutions=tuple(convolutions.get(number, ())),
            reason=reasons.get(number),
        )
        for number, own in sets.items()
    ]


def _equal(found: Trace, set_of: Ints, groups: list[Group]) -> dict[Group, tuple[Group, ...]]:
    """For a group, those whose number the code takes for its own, where each has as many sets."""
    group_of = np.full(int(set_of.max()) + 1, -1)
    for index, group in enumerate(groups):
        group_of[group.sets] = index
    counted = [(rows[0][1], places) for rows in found.counters.values() for _, places in rows[1:]]
    pairs: set[tuple[int, int]] = set()
    for both in [*found.equals, *counted]:
        own = [np.unique(group_of[set_of[each[each > 0]]]).tolist() for each in both]
        if all(len(groups_of_side) == 1 for groups_of_side in own):
            (one,), (other,) = own
            if min(one, other) >= 0 and len(groups[one].sets) == len(groups[other].sets):
                pairs.add((one, other))
    rows, columns = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    edges = coo_array(
        (np.ones(len(pairs), np.int8), (rows, columns)), shape=(len(groups), len(groups))
    )
    _, classes = connected_components(edges, directed=False)
    members: dict[int, list[Group]] = {}
    for group, number in zip(groups, classes.tolist(), strict=True):
        members.setdefault(number, []).append(group)
    return {group: tuple(own) for own in members.values() if len(own) > 1 for group in own}


def _givers(found: Trace) -> list[Side]:
    sides = found.sides.values()
    return [side for side in sides if side.role == "outputs" and isinstance(side.layer, WEIGHTED)]


def _names(sides: list[Side], set_of: Ints, group_of: Ints) -> dict[int, dict[str, None]]:
    """For each group, the layers of those sides that its sets lie in."""
    found: dict[int, dict[str, None]] = {}
    for side in sides:
        for number in np.unique(group_of[side.of(set_of)]).tolist():
            found.setdefault(number, {}).update(dict.fromkeys(side.names))
    return found


def _units(grouped: list[Side], places: list[Ints], set_of: Ints, group_of: Ints) -> dict[int, int]:
    """For each group that something divides into equal parts, what its number is a multiple of."""
    units: dict[int, int] = {}
    for side in grouped:
        for number in np.unique(group_of[side.of(set_of)]).tolist():
            units[number] = math.lcm(units.get(number, 1), side.blocks)
    for rows in places:
        heads = np.unique(np.stack([group_of[set_of[rows[:, 0]]], rows[:, 2]]), axis=1)
        for number, count in zip(*np.unique(heads[0], return_counts=True), strict=True):
            units[int(number)] = math.lcm(units.get(int(number), 1), int(count))
    return units


def _mixed(name: str, role: str | int, part: int) -> np.uint64:
    """A number; the sum of some tells which names, roles and parts were added up."""
    digest = hashlib.blake2b(f"{name} {role} {part}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest))
