"""A base for pruners of channels: a threshold for the whole model, and the way to a smaller one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

from micronet.errors import NothingPrunedError, OptionError, PruningError
from micronet.options import build, option
from micronet.techniques.pruner import Pruner, PruningResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from micronet.pruning.budgets import Outcome
    from micronet.pruning.channels import Channels, Group
    from micronet.pruning.limits import Rule
    from micronet.pruning.planner import Planner
    from micronet.pruning.selection import Counts


@attrs.frozen(kw_only=True)
class Limit:
    """What may go of a layer, and what must stay."""

    max: float = option(1.0, ge=0, le=1, doc="Largest fraction of its channels that may go.")
    least: int = option(1, ge=1, doc="Smallest number of its channels that stays.")


@attrs.frozen(kw_only=True)
class ChannelPruner(Pruner):
    """Removes the channels with the lowest scores of the whole model.

    A pruner of its own overrides `scores`, `rounded` or `why_not`.
    """

    percent: float = option(0.5, gt=0, le=0.95, doc="Fraction to remove, of what target says.")
    target: Literal["channels", "params", "flops"] = option(
        "channels",
        doc="What the fraction means: of the channels that can be removed, or of all the model's "
        "parameters or operations.",
    )
    least: int = option(1, ge=1, doc="Smallest number of channels that a layer keeps.")
    layers: Mapping[str, Any] = option(
        attrs.Factory(dict),
        doc="Limits of single layers, by their names or patterns: the largest fraction of its "
        "channels that may go, and the smallest number that stays, as in "
        "{head.*: {max: 0.2}, stem: {least: 16}}.",
    )
    keep: tuple[str, ...] = option(
        (), doc="Names of layers that stay whole, or patterns such as layer1.*."
    )

    def __attrs_post_init__(self) -> None:
        for pattern, limits in self.layers.items():
            _limit(pattern, limits)

    def scores(self, channels: Channels) -> NDArray[np.float64]:
        """How much each set of coupled channels matters, [sets]; the lowest go first.

        By default what `micronet.pruning.criteria.by_gammas` says.
        """
        from micronet.pruning.criteria import by_gammas

        return by_gammas(channels)

    def rounded(self, group: Group, above: int) -> int:
        """How many sets of a group stay when so many are above the threshold, at least one."""
        return to_multiple(above, len(group.sets), group.unit)

    def why_not(self, group: Group) -> str | None:  # noqa: ARG002 (for those that mind)
        """Why this pruner leaves a group whole, beyond the group's own reason; `None` if not."""
        return None

    def prune(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> PruningResult:
        from micronet.graph.copying import copy_of, has_plain_weights
        from micronet.pruning import apply_plan
        from micronet.pruning.exactness import check_exact
        from micronet.pruning.planner import described
        from micronet.pruning.removal import check_runs
        from micronet.quantization.layers import quantized_layers

        if not has_plain_weights(model):  # and say so once, not for each copy
            model = copy_of(model)
        if any(True for _ in quantized_layers(model)):
            raise PruningError("The model is quantized already; prune it before.")
        planner = self._planner(model, example_inputs)
        outcome = self._outcome(planner)
        reasons = {**planner.reasons, **_untouched(outcome.counts)}
        if len(reasons) == len(planner.channels.groups):
            raise NothingPrunedError(
                f"With percent {self.percent:g}, no layer would lose a channel: "
                f"{described(reasons)}."
            )
        pruned = apply_plan(model, outcome.plan)
        check_runs(model, pruned, example_inputs)
        standardised = planner.channels.standardised
        check_exact(model, pruned, outcome.plan, example_inputs, standardised)
        return PruningResult(pruned, outcome.plan, _by_layer(reasons), self._remarks(outcome.went))

    def groups(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[tuple[str, ...]]:
        planner = self._planner(model, example_inputs)
        return [group.layers for bundle in planner.bundles() for group in bundle.groups]

    def _planner(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Planner:
        import numpy as np

        from micronet.pruning.channels import Channels
        from micronet.pruning.limits import floors
        from micronet.pruning.planner import Planner
        from micronet.pruning.tracing import Failure

        large, inputs = _on_cpu(model, example_inputs)
        _check_numbers(large)
        try:
            channels = Channels.of(large, inputs)
        except Failure as failure:
            raise PruningError(f"The model's channels can't be followed: {failure}") from failure
        limits = floors(large, channels, self._rules())
        reasons = {}
        for group in channels.groups:
            reason = group.reason or self.why_not(group)
            if group in limits and limits[group].sets >= len(group.sets):
                reason = reason or limits[group].rule.reason
            if reason is not None:
                reasons[group] = reason
        least = {group: floor.sets for group, floor in limits.items()}
        scores = self.scores(channels)
        if np.isnan(scores).any():
            raise PruningError(f"{type(self).__name__} scores some channels as NaN.")
        return Planner(large, inputs, channels, scores, self.rounded, least, reasons)

    def _rules(self) -> list[Rule]:
        from micronet.pruning.limits import Rule

        rules = [Rule(pattern, 0, 1, f"keep says so ({pattern})") for pattern in self.keep]
        for pattern, limits in self.layers.items():
            limit = _limit(pattern, limits)
            rules.append(Rule(pattern, limit.max, limit.least, f"layers says so ({pattern})"))
        least = Rule("*", 1, self.least, f"least says so ({self.least})")
        return [*rules, least] if self.least > 1 else rules

    def _outcome(self, planner: Planner) -> Outcome:
        from micronet.measure import gflops, params_m
        from micronet.pruning.budgets import of_channels, of_cost
        from micronet.pruning.costs import Cost, operations, parameters

        if self.target == "channels":
            return of_channels(planner, self.percent)
        cost = (
            Cost("flops", lambda *call: gflops(*call) * 1e9, operations)
            if self.target == "flops"
            else Cost("params", lambda model, _: params_m(model) * 1e6, parameters)
        )
        return of_cost(planner, cost, self.percent)

    def _remarks(self, went: float) -> tuple[str, ...]:
        """What the user should know of the fraction that went."""
        from micronet.pruning.budgets import TOLERANCE

        if abs(went - self.percent) <= TOLERANCE:
            return ()
        if self.target == "channels":
            remark = (
                f"{went:.1%} of the channels that can go went, not {self.percent:.1%}: layers keep "
                f"more or fewer than are above the threshold. A target of params or flops makes up "
                f"for that."
            )
        else:
            remark = (
                f"{went:.1%} of the {self.target} went, not {self.percent:.1%}: the layers that "
                f"can lose channels lose many at once, and no choice comes nearer."
            )
        return (remark,)


def to_multiple(number: int, size: int, multiple: int) -> int:
    """The multiple nearest to `number` from 1 x multiple to size; `size` where none is.

    >>> [to_multiple(number, 20, 8) for number in (1, 11, 12, 20)]
    [8, 8, 16, 16]
    """
    if size < multiple:
        return size
    return min(max(math.floor(number / multiple + 0.5), 1), size // multiple) * multiple


def _on_cpu(
    model: nn.Module, example_inputs: tuple[Tensor, ...]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A copy to experiment with."""
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    from micronet.graph.copying import copy_of
    from micronet.graph.example_inputs import check_example_inputs

    check_example_inputs(example_inputs, required=True)
    inputs = tree_map_only(Tensor, Tensor.cpu, example_inputs)
    return copy_of(model).cpu(), inputs


def _limit(pattern: str, limits: Any) -> Limit:
    if not isinstance(limits, Mapping):
        raise OptionError(
            f"layers {pattern!r} needs max or least, as in {{max: 0.2}}, got {limits!r}.", "layers"
        )
    try:
        return build(Limit, limits, owner=f"layers {pattern!r}")
    except OptionError as error:
        raise OptionError(str(error), "layers") from error


def _check_numbers(model: nn.Module) -> None:
    """Raises PruningError where a parameter holds a NaN or an infinity."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise PruningError(
                f"{name} holds NaN or infinite numbers, so what matters in the model can't be "
                f"told. Prune one whose training went well."
            )


def _untouched(counts: Counts) -> dict[Group, str]:
    """The groups that could lose channels and did not."""
    return {
        group: "what is above the threshold keeps all its channels"
        for group, count in counts.items()
        if count == len(group.sets)
    }


def _by_layer(reasons: Mapping[Group, str]) -> dict[str, str]:
    """For each layer, the first reason, which others may come from."""
    found: dict[str, str] = {}
    for group, reason in reasons.items():
        for name in group.layers:
            found.setdefault(name, reason)
    return found
