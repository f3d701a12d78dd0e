"""A base for pruners of channels: a threshold for the whole model, and the way to a smaller one."""

from __future__ import annotations

import fnmatch
import math
from typing import TYPE_CHECKING, Literal

import attrs

from micronet.errors import PruningError, nearest
from micronet.options import option
from micronet.techniques.pruner import Pruner, PruningResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from micronet.pruning import PruningPlan
    from micronet.pruning.channels import Channels, Group
    from micronet.pruning.removal import Misfit


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
    keep: tuple[str, ...] = option(
        (), doc="Names of layers that stay whole, or patterns such as layer1.*."
    )

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
        from micronet.pruning.removal import check_runs
        from micronet.quantization.layers import quantized_layers

        if not has_plain_weights(model):  # and say so once, not for each copy
            model = copy_of(model)
        if any(True for _ in quantized_layers(model)):
            raise PruningError("The model is quantized already; prune it before.")
        large, inputs = _on_cpu(model, example_inputs)
        channels = self._followed(large, inputs)
        reasons = self._reasons(large, channels)
        plan = self._plan(large, inputs, channels, reasons)
        pruned = apply_plan(model, plan)
        check_runs(pruned, example_inputs)
        check_exact(model, pruned, plan, example_inputs)
        return PruningResult(pruned, plan, _by_layer(channels, reasons))

    def groups(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[tuple[str, ...]]:
        large, inputs = _on_cpu(model, example_inputs)
        channels = self._followed(large, inputs)
        reasons = self._reasons(large, channels)
        return [g.layers for index, g in enumerate(channels.groups) if index not in reasons]

    def _followed(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Channels:
        from micronet.pruning.channels import Channels
        from micronet.pruning.tracing import Failure

        try:
            return Channels.of(model, example_inputs)
        except Failure as failure:
            raise PruningError(f"The model's channels can't be followed: {failure}") from failure

    def _reasons(self, model: nn.Module, channels: Channels) -> dict[int, str]:
        """For each group that stays whole, by its place, why."""
        names = [name for name, _ in model.named_modules() if name]
        for pattern in self.keep:
            if not fnmatch.filter(names, pattern):
                raise PruningError(
                    f"keep names no layer of the model: {pattern!r}.{nearest(pattern, names)}"
                )
        found: dict[int, str] = {}
        for index, group in enumerate(channels.groups):
            kept = [p for p in self.keep if fnmatch.filter(group.layers, p)]
            reason = group.reason or self.why_not(group)
            if kept:
                reason = f"keep says so ({kept[0]})"
            if reason is not None:
                found[index] = reason
        return found

    def _plan(
        self,
        model: nn.Module,
        example_inputs: tuple[Tensor, ...],
        channels: Channels,
        reasons: dict[int, str],
    ) -> PruningPlan:
        from micronet.pruning.removal import Misfit, plan_of
        from micronet.pruning.selection import Selection

        scores, total = self.scores(channels), self._total(model, example_inputs)
        least: dict[Group, int] = {}

        def rounded(group: Group, above: int) -> int:
            return max(self.rounded(group, above), least.get(group, 1))

        while True:
            groups = [g for index, g in enumerate(channels.groups) if index not in reasons]
            if not groups:
                told = [f"{layer}: {why}" for layer, why in _by_layer(channels, reasons).items()]
                raise PruningError(f"No layer can be pruned: {'; '.join(told) or 'it has none'}.")
            selection = Selection(channels, groups, scores, rounded)
            kept = selection.counts(self.percent, self.target, total)
            counts = dict(zip(groups, kept, strict=True))
            try:
                return plan_of(model, example_inputs, channels, list(counts.items()), scores)
            except Misfit as misfit:
                if not misfit.groups:
                    raise PruningError(f"The model can't be pruned: {misfit.reason}.") from misfit
                for group in misfit.groups:
                    more = _more(group, counts, misfit)
                    least.update(more)
                    if not more:
                        reasons[channels.groups.index(group)] = misfit.reason

    def _total(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> float:
        from micronet.measure import gflops, params_m

        if self.target == "channels":
            return math.nan
        if self.target == "flops":
            return gflops(model, example_inputs) * 1e9
        return params_m(model) * 1e6


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


def _more(group: Group, counts: dict[Group, int], misfit: Misfit) -> dict[Group, int]:
    """How many sets to keep in another attempt; empty where the group must stay whole.

    A group and its equals keep as many: code that splits a layer's channels into halves may need
    halves of one size. Where an uneven shuffle was the trouble, it keeps the next number that its
    parts allow.
    """
    equals = {
        other: count
        for other, count in counts.items()
        if other.layers == group.layers and len(other.sets) == len(group.sets)
    }
    if len(set(equals.values())) > 1:
        return dict.fromkeys(equals, max(equals.values()))
    more = counts[group] + group.unit
    return {group: more} if misfit.larger and group.unit > 1 and more < len(group.sets) else {}


def _by_layer(channels: Channels, reasons: dict[int, str]) -> dict[str, str]:
    return {
        name: reasons[index]
        for index, group in enumerate(channels.groups)
        if index in reasons
        for name in group.layers
    }
