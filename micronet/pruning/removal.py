"""From the number of channels that stay in each group to the smaller model.

Twice the same way of following channels: a smaller model with any weights tells in which place
each of its channels lies, and so which channel of the large one may take it. A channel shuffle or a
group convolution thus gets its inputs in the order in which it reads them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from micronet.errors import PruningError
from micronet.graph.outputs import tensors
from micronet.pruning import Kept, PruningPlan, apply_plan
from micronet.pruning.channels import Channels, Group
from micronet.pruning.follower import WEIGHTED, Ints, Key, Side
from micronet.pruning.tracing import Failure, pair_of


class Misfit(Exception):  # noqa: N818 (leads to another attempt)
    """Groups that can't become smaller as asked.

    Args:
        groups: Them.
        reason: Why.
        larger: Whether they may with more channels left.
    """

    def __init__(self, groups: Sequence[Group], reason: str, *, larger: bool = False) -> None:
        super().__init__(reason)
        self.groups, self.reason, self.larger = groups, reason, larger


def plan_of(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    channels: Channels,
    counts: Sequence[tuple[Group, int]],
    scores: NDArray[np.float64],
) -> PruningPlan:
    """Which channels stay, and in which order.

    Args:
        model: The large model.
        example_inputs: What its forward takes.
        channels: Of the model.
        counts: Groups that become smaller, and how many of their sets stay.
        scores: For each set, how much it matters.

    Raises:
        Misfit: Some groups can't be pruned like this.
    """
    counts = [(group, count) for group, count in counts if count < len(group.sets)]
    kept = np.ones(len(scores), bool)
    for group, count in counts:
        kept[group.sets[count:]] = False
    first = {side.key: np.flatnonzero(kept[side.of(channels.set_of)]) for side in _sides(channels)}
    skeleton = apply_plan(model, _plan(channels, first))
    try:
        smaller = channels.of_smaller(skeleton, example_inputs)
    except Failure as failure:
        raise _culprits(model, example_inputs, channels, counts, scores, failure) from failure
    _check_factors(model, channels, smaller, counts)
    places = _places(channels, smaller, counts, scores)
    order = {}
    for side in _sides(channels):
        own, there = side.of(channels.set_of), smaller.sides[side.key]
        wanted = places[there.of(smaller.set_of)]
        stays = np.flatnonzero(np.isin(own, wanted))
        found = np.empty(len(wanted), np.int64)
        # A set may lie at several places of a side: the first takes the first, and so on.
        found[np.argsort(wanted, kind="stable")] = stays[np.argsort(own[stays], kind="stable")]
        order[side.key] = found
    return _plan(channels, order)


def _check_factors(
    model: nn.Module,
    channels: Channels,
    smaller: Channels,
    counts: Sequence[tuple[Group, int]],
) -> None:
    """Raises Misfit where the code computes a number from that of channels, as an attention's scale
    from the width of its heads: the smaller model would be another function.
    """
    sets: set[int] = set()
    names = set()
    for place, (number, own) in channels.factors.items():
        if place in smaller.factors and smaller.factors[place][0] != number:
            names.add(place[0])
            sets.update(channels.set_of[own].tolist())
    if not names:
        return
    groups = [group for group, _ in counts]
    kind = type(model.get_submodule(min(names))).__name__
    involved = [group for group in groups if not sets.isdisjoint(group.sets.tolist())]
    inside = _inside(groups, channels, tuple(f"{name}." for name in names))
    raise Misfit(involved or inside or groups, f"the code of {kind} computes with their number")


def _places(
    channels: Channels,
    smaller: Channels,
    counts: Sequence[tuple[Group, int]],
    scores: NDArray[np.float64],
) -> Ints:
    """For each set of the smaller model, the set of the large one that takes its place."""
    kinds, sizes = np.unique(smaller.kinds, return_counts=True)
    wanted = dict(zip(kinds.tolist(), sizes.tolist(), strict=True))
    stays = np.ones(len(scores), bool)
    wrong = []
    for group, count in counts:
        stays[group.sets] = False
        found = 0
        for kind in np.unique(channels.kinds[group.sets]).tolist():
            alike = group.sets[channels.kinds[group.sets] == kind]
            number = min(wanted.get(kind, 0), len(alike))
            chosen = alike[np.argsort(scores[alike], kind="stable")][len(alike) - number :]
            stays[chosen] = True
            found += number
        if found != count:
            wrong.append(group)
    left = np.flatnonzero(stays)
    left = left[np.argsort(channels.kinds[left], kind="stable")]
    there = np.argsort(smaller.kinds, kind="stable")
    if wrong or not np.array_equal(channels.kinds[left], smaller.kinds[there]):
        groups = wrong or [group for group, _ in counts]
        raise Misfit(groups, "fewer channels would be shuffled to other layers", larger=True)
    places = np.empty(len(there), np.int64)
    places[there] = left
    return places


def _culprits(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    channels: Channels,
    counts: Sequence[tuple[Group, int]],
    scores: NDArray[np.float64],
    failure: Failure,
) -> Misfit:
    """The groups whose smaller number makes the forward pass fail."""
    kind = type(failure.module)
    reason = f"the code of {kind.__name__} fixes their number ({failure})"
    groups = [group for group, _ in counts]
    if len(groups) <= 1:
        return Misfit(groups, reason)
    if kind not in (nn.Sequential, type(model)):
        prefixes = [f"{name}." for name, m in model.named_modules() if type(m) is kind]
        for suspects in (
            _giving(groups, _alike(failure.layers, prefixes)),
            _inside(groups, channels, tuple(prefixes)),
        ):
            if 0 < len(suspects) < len(groups):
                return Misfit(suspects, reason)
    half = len(counts) // 2
    found: list[Group] = []
    for part in (counts[:half], counts[half:]):
        try:
            plan_of(model, example_inputs, channels, part, scores)
        except Misfit as misfit:
            found += misfit.groups
            reason = misfit.reason
    return Misfit(found or groups, reason)


def _alike(layers: Sequence[str], prefixes: Sequence[str]) -> set[str]:
    """Layers, and those in the same place of other modules of the same type."""
    places = {
        layer.removeprefix(prefix)
        for layer in layers
        for prefix in prefixes
        if layer.startswith(prefix)
    }
    return {*layers, *(prefix + place for prefix in prefixes for place in places)}


def _giving(groups: Sequence[Group], layers: set[str]) -> list[Group]:
    return [group for group in groups if layers & set(group.layers)]


def _inside(groups: Sequence[Group], channels: Channels, prefixes: tuple[str, ...]) -> list[Group]:
    """The groups that lie in layers of some modules."""
    sets = {
        number
        for side in channels.sides.values()
        if side.names[0].startswith(prefixes)
        for number in side.of(channels.set_of).tolist()
    }
    return [group for group in groups if sets & set(group.sets.tolist())]


def _sides(channels: Channels) -> list[Side]:
    return list(channels.sides.values())


def _plan(channels: Channels, order: dict[Key, Ints]) -> PruningPlan:
    """A plan that touches the layers whose channels become fewer or move."""
    layers: dict[str, Kept] = {}
    for side in channels.sides.values():
        outputs, layer = order[side.key], side.layer
        if not isinstance(layer, nn.Module):
            if _changed(outputs, side):
                assert isinstance(side.role, int)
                own = Kept(_tuple(outputs), (), axis=side.role)
                layers.update(dict.fromkeys(side.names, own))
        elif side.role == "outputs":
            inputs: tuple[int, ...] = ()
            groups, changed = 1, _changed(outputs, side)
            if isinstance(layer, WEIGHTED):
                other = channels.sides[side.names[0], "inputs"]
                inputs = _tuple(order[other.key])
                changed = changed or _changed(order[other.key], other)
            if isinstance(layer, _ConvNd):
                depthwise = side.names[0] in channels.depthwise
                groups = len(inputs) if depthwise else layer.groups
            if changed:
                layers.update(dict.fromkeys(side.names, Kept(_tuple(outputs), inputs, groups)))
    layers.update(_counts(channels, order))
    return PruningPlan(layers)


def _counts(channels: Channels, order: dict[Key, Ints]) -> dict[str, Kept]:
    """What becomes of attributes that count channels, where all that they count agrees."""
    kept = np.zeros(len(channels.set_of), bool)
    kept[0] = True  # what is no channel stays
    for side in channels.sides.values():
        kept[side.first + order[side.key]] = True
    found = {}
    for name, counted in channels.counters.items():
        left = {Fraction(value * int(kept[places].sum()), len(places)) for value, places in counted}
        (value, _), number = counted[0], next(iter(left))
        if len(left) == 1 and number.denominator == 1 and 0 < number < value:
            found[name] = Kept(tuple(range(int(number))), ())
    return found


def _changed(order: Ints, side: Side) -> bool:
    return len(order) < side.size or bool((np.diff(order) < 0).any())


def _tuple(numbers: Ints) -> tuple[int, ...]:
    return tuple(numbers.tolist())


def check_runs(model: nn.Module, pruned: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
    """A forward and a backward pass of a copy, in eval mode, and in train mode if that is on.

    Args:
        model: As it was. What it can't do in train mode either, such as torchvision's detectors
            without targets, is no fault of the pruned one.
        pruned: As it is now.
        example_inputs: Images.

    Raises:
        PruningError: Either fails.
    """
    for training in (False, True):
        if training and not pruned.training:
            continue
        try:
            _run_both_ways(pruned, example_inputs, training=training)
        except Exception as error:  # whatever a model with mismatched channels raises
            if training and not _runs_in_training(model, example_inputs):
                return
            raise PruningError(f"The pruned model does not run: {error}") from error


def _run_both_ways(model: nn.Module, example_inputs: tuple[Tensor, ...], *, training: bool) -> None:
    trial = copy.deepcopy(model).train(training).requires_grad_(requires_grad=True)
    with torch.enable_grad():
        outputs = tensors(trial(*pair_of(example_inputs))).values()
        losses = [t.float().mean() for t in outputs if t.requires_grad]
        torch.autograd.backward(torch.stack(losses).sum())


def _runs_in_training(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> bool:
    try:
        _run_both_ways(model, example_inputs, training=True)
    except Exception:  # it wants something beside images, say
        return False
    return True
