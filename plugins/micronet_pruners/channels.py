"""Which channels of which layers live and die together, and their physical removal.

torch-pruning follows the channels through residual additions, concatenations, depthwise
convolutions and flattening; criteria and rules are the pruners' own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import attrs
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from micronet.errors import PruningError
from micronet.pruning import Kept, PruningPlan
from micronet.techniques import PruningResult


@attrs.frozen(eq=False)
class ChannelGraph:
    """Groups of coupled channels in a copy of a model.

    Args:
        model: The copy, in eval mode; `remove_all_but` makes it smaller.
        training: Names of the original's modules that are in training mode.
        trainable: Names of the parameters that learn.
        example_inputs: What its forward takes.
        graph: torch-pruning's dependencies.
        roots: One layer of each group; pruning its outputs prunes the group.
        gammas: For each group, |gamma| of each channel [channels], the mean over the batch norms
            that share it; `None` where there is none or the group must stay.
        reasons: For each layer that stays whole, why.
    """

    model: nn.Module
    training: frozenset[str]
    trainable: frozenset[str]
    example_inputs: tuple[Tensor, ...]
    graph: torch_pruning.DependencyGraph
    roots: list[nn.Module]
    gammas: list[Tensor | None]
    reasons: dict[str, str]

    @classmethod
    def build(cls, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> ChannelGraph:
        """The groups of `model`, which stays as it is.

        Raises:
            PruningError: torch-pruning can't follow the model.
        """
        pruned = copy.deepcopy(model).eval()
        pruned.requires_grad_(requires_grad=True)
        names = {module: name for name, module in pruned.named_modules()}
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(
                pruned, example_inputs=example_inputs, verbose=False
            )
            groups = list(graph.get_all_groups())
        except Exception as error:  # whatever the model or the tracer raises
            raise PruningError(f"The model's channels can't be followed: {error}") from error
        last = _output_layers(pruned, example_inputs)
        roots, gammas, reasons = [], [], {}
        for group in groups:
            root = group[0].dep.target.module
            reason = _why_not(group, last)
            score = None if reason else _mean_gammas(group)
            if score is None:
                reasons[names[root]] = reason or "no batch norm follows it"
            roots.append(root)
            gammas.append(score)
        trainable = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
        return cls(
            model=pruned,
            training=frozenset(name for name, m in model.named_modules() if m.training),
            trainable=trainable,
            example_inputs=example_inputs,
            graph=graph,
            roots=roots,
            gammas=gammas,
            reasons=reasons,
        )

    def remove_all_but(self, keep: Sequence[Tensor | None]) -> PruningResult:
        """Removes channels, and checks that what is left runs forward and backward.

        Args:
            keep: For each group, the channels that stay; `None` leaves the group whole.
        """
        names = {module: name for name, module in self.model.named_modules()}
        alive = {module: _Alive.of(module) for module in names if isinstance(module, _PRUNABLE)}
        for root, kept in zip(self.roots, keep, strict=True):
            if kept is None:
                continue
            stay = set(kept.tolist())
            channels = range(self.graph.get_out_channels(root))
            dead = [channel for channel in channels if channel not in stay]
            if not dead:
                continue
            prune = self.graph.get_pruner_of_module(root).prune_out_channels
            group = self.graph.get_pruning_group(root, prune, dead)
            for dependency, positions in group:
                module = dependency.target.module
                if module in alive:
                    outputs = self.graph.is_out_channel_pruning_fn(dependency.handler)
                    alive[module].remove(positions, outputs=outputs)
            group.prune()
        plan = PruningPlan(
            {
                names[module]: channels.kept(module)
                for module, channels in alive.items()
                if channels.touched
            }
        )
        _check_runs(self.model, self.example_inputs)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.trainable)
        for name, module in self.model.named_modules():
            module.training = name in self.training
        return PruningResult(self.model, plan, self.reasons)


_PRUNABLE = (_ConvNd, nn.Linear, _BatchNorm)


@attrs.define(eq=False)
class _Alive:
    """Original indices of the channels that a layer still has."""

    outputs: list[int]
    inputs: list[int]
    touched: bool = False

    @classmethod
    def of(cls, layer: nn.Module) -> _Alive:
        if isinstance(layer, _BatchNorm):
            return cls(list(range(layer.num_features)), [])
        if isinstance(layer, _ConvNd):
            per_group = layer.in_channels // layer.groups
            return cls(list(range(layer.out_channels)), list(range(per_group)))
        assert isinstance(layer, nn.Linear)
        return cls(list(range(layer.out_features)), list(range(layer.in_features)))

    def remove(self, positions: Sequence[int], *, outputs: bool) -> None:
        gone, channels = set(positions), self.outputs if outputs else self.inputs
        left = [channel for place, channel in enumerate(channels) if place not in gone]
        channels[:] = left
        self.touched = True

    def kept(self, layer: nn.Module) -> Kept:
        groups = layer.groups if isinstance(layer, _ConvNd) else 1
        return Kept(tuple(self.outputs), tuple(self.inputs), groups)


def _output_layers(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> set[nn.Module]:
    """The last weighted layer to run: what it gives, the model gives."""
    ran: list[nn.Module] = []
    weighted = [m for m in model.modules() if isinstance(m, (_ConvNd, nn.Linear))]
    hooks = [m.register_forward_hook(lambda module, *_: ran.append(module)) for m in weighted]
    try:
        with torch.no_grad():
            model(*example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return set(ran[-1:])


def _why_not(group: torch_pruning.dependency.Group, last: set[nn.Module]) -> str | None:
    for dependency, _ in group:
        module = dependency.target.module
        if module in last and _gives_outputs(group, module):
            return "it gives the model's outputs"
        if isinstance(module, _ConvNd) and 1 < module.groups < module.out_channels:
            return "it shares channels with a group convolution"
        if isinstance(module, nn.Parameter) or (
            not isinstance(module, _PRUNABLE)
            and next(module.parameters(recurse=False), None) is not None
        ):
            return f"it shares channels with a {type(module).__name__}, which can't be pruned yet"
    return None


def _gives_outputs(group: torch_pruning.dependency.Group, module: nn.Module) -> bool:
    return any(
        dependency.target.module is module
        and group._DG.is_out_channel_pruning_fn(dependency.handler)  # noqa: SLF001 (no other way)
        for dependency, _ in group
    )


def _mean_gammas(group: torch_pruning.dependency.Group) -> Tensor | None:
    channels = len(group[0].idxs)
    total, count = torch.zeros(channels), torch.zeros(channels)
    for item in group:
        bn = item.dep.target.module
        if isinstance(bn, _BatchNorm) and bn.weight is not None:
            roots = torch.tensor(item.root_idxs)
            total.index_add_(0, roots, bn.weight.detach().abs().cpu()[torch.tensor(item.idxs)])
            count.index_add_(0, roots, torch.ones(len(roots)))
    return total / count if bool((count > 0).all()) else None


def _check_runs(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
    try:
        model(*example_inputs).float().mean().backward()
    except Exception as error:  # whatever a model with mismatched channels raises
        raise PruningError(f"The pruned model does not run: {error}") from error
    model.zero_grad()
