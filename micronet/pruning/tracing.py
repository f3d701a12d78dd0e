"""From which channel of which layer each number in a model comes.

The forward pass runs once with a second tensor beside each activation: labels, of the same shape,
that tell which channel an element belongs to. Whatever only moves numbers (views, splits, channel
shuffles, windows of attention) moves the labels by the very same operation, so nothing is guessed
from sizes. Where numbers meet, in a residual addition say, their channels are coupled; where they
enter a layer, they are coupled with its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from micronet import structure
from micronet.errors import PruningError
from micronet.graph.batches import batch_size, first_rows, joined
from micronet.graph.modes import attention_in_parts, modes_kept
from micronet.graph.outputs import tensors
from micronet.pruning.attributes import Counting, sourced
from micronet.pruning.follower import Follower, Trace
from micronet.pruning.operations import follow
from micronet.pruning.unreached import unreached, watch


class Failure(Exception):  # noqa: N818 (told apart from errors that are shown)
    """The forward pass raised.

    Args:
        error: What.
        module: The innermost module with submodules that was at work.
        layers: Names of the layers whose channels went into the operation that raised.
    """

    def __init__(self, error: Exception, module: nn.Module, layers: tuple[str, ...]) -> None:
        super().__init__(str(error).partition("\n")[0] or type(error).__name__)
        self.module, self.layers = module, layers


def trace(model: nn.Module, example_inputs: tuple[Any, ...]) -> Trace:
    """Follows the channels of a model, whose batch norms may take new statistics in passing.

    Layers that eval mode leaves out, such as auxiliary classifiers, are followed in train mode.

    Raises:
        Failure: The model does not run.
    """
    found = Trace()
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels:
            found.depthwise.add(name)
    return follow_into(found, model, example_inputs)


def follow_into(found: Trace, model: nn.Module, example_inputs: tuple[Any, ...]) -> Trace:
    """The same, where it is known which convolutions count as depthwise."""
    with modes_kept(model):
        one = example_inputs if _holds_lists(example_inputs) else first_rows(example_inputs, 1)
        _run(model.eval(), one, found)
        if unreached(model, found):
            more = _beside(found)
            try:
                _run(model.train(), pair_of(example_inputs), more)
            except Failure:  # a detector asks for targets
                pass
            else:
                _take(found, more)
                found.couplings += more.couplings
                found.places += more.places
        _forget_couplings_of_locked(found)
        if missing := unreached(model, found):
            more = _beside(found)
            _run(model.eval(), one, more, missing)
            _take(found, more)
    return found


def _beside(found: Trace) -> Trace:
    """For another pass, whose layers with known channels have the same ones."""
    return Trace(dict(found.sides), found.channels, depthwise=found.depthwise)


def _take(found: Trace, more: Trace) -> None:
    for name, counted in more.counters.items():
        found.counters.setdefault(name, []).extend(counted)
    found.sides, found.channels = more.sides, more.channels
    found.standardised |= more.standardised
    found.equals += more.equals
    found.factors = {**more.factors, **found.factors}
    found.locked = {**more.locked, **found.locked}


def _forget_couplings_of_locked(found: Trace) -> None:
    """They stay whatever they meet, which in a detector depends on what it finds."""
    locked = np.zeros(found.channels, bool)
    locked[list(found.locked)] = True
    found.couplings = [pairs[:, ~locked[pairs].all(0)] for pairs in found.couplings]


def pair_of(example_inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Two images: batch norms in train mode need more than one value."""
    if _holds_lists(example_inputs):
        return example_inputs
    one = batch_size(example_inputs) == 1
    return joined([example_inputs] * 2) if one else first_rows(example_inputs, 2)


def _holds_lists(example_inputs: tuple[Any, ...]) -> bool:
    """Whether an input is a list, as a detector's images are, each without a batch."""
    return any(isinstance(each, (list, tuple)) for each in example_inputs)


def _run(
    model: nn.Module,
    inputs: tuple[Any, ...],
    found: Trace,
    missing: Mapping[str, nn.Module] | None = None,
) -> None:
    """Follows a forward pass, in which what may feed layers that are missing is locked."""
    if torch.is_inference_mode_enabled():
        raise PruningError(
            "Channels can't be followed under torch.inference_mode; prune outside of it, or under "
            "torch.no_grad."
        )
    working: list[nn.Module] = [model]
    follower = Follower(model, found, working)
    if missing:
        follower.watched = watch(follower, missing)
    watching = _Watching(follower)
    try:
        with (
            torch.no_grad(),
            attention_in_parts(),
            _watched(model, working),
            sourced(model),
            watching,
            Counting(follower),
        ):
            outputs = model(*inputs)
    except Exception as error:  # whatever the model's code raises
        inner = next(m for m in reversed(working) if any(m.children()) or m is model)
        raise Failure(error, inner, follower.layers_at_work()) from error
    found_outputs = tensors(outputs)
    if not found_outputs:
        raise PruningError(
            f"{type(model).__name__} gives {structure.described(outputs)} on the example inputs, "
            f"and no tensor in it whose channels could be kept."
        )
    for output in found_outputs.values():
        follower.lock(output, "it gives the model's outputs")


@contextmanager
def _watched(model: nn.Module, working: list[nn.Module]) -> Iterator[None]:
    """Keeps the modules that are at work in `working`, the innermost last."""

    def leave(*_: Any) -> None:
        working.pop()

    hooks = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(lambda m, _: working.append(m)))
        hooks.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Does to labels what a forward pass does to activations."""

    def __init__(self, follower: Follower) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.follower = follower

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.follower.arguments = (args, kwargs)
        out = func(*args, **(kwargs or {}))
        follow(self.follower, func, out, args, kwargs or {})
        return out
