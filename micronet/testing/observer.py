"""What users rely on in an observer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from micronet.errors import QuantizationError
from micronet.quantization import AffineFakeQuantizer, Grid, ObserverModule
from micronet.techniques import Observer
from micronet.testing.contract import Case, Contracts, shared_contracts
from micronet.testing.networks import difference, images, state_of
from micronet.testing.ranks import can_fork, on_two_ranks

_GRID = Grid(8, symmetric=False)


@attrs.define
class ObserverCase(Case):
    """An observer under examination."""

    technique: Observer
    kind: ClassVar[str] = "observer"

    def after(self, *batches: Tensor, axis: int | None = None) -> ObserverModule:
        """A module that has seen batches."""
        module = self.technique.build(axis, grid=_GRID)
        for batch in batches:
            module(batch)
        return module


OBSERVER: Contracts[ObserverCase] = Contracts(*shared_contracts())


def check_observer(
    observer: Observer, *, expected_failures: Mapping[str, str] | None = None
) -> None:
    """Verifies every contract of observers.

    Args:
        observer: An instance, with the options to examine.
        expected_failures: Names of contracts that it is known to break, and why.

    Raises:
        ContractError: What is broken, what was seen and what to do, for all contracts at once.
    """
    OBSERVER.check(ObserverCase(observer), expected_failures or {})


@OBSERVER.contract("Clip, but never widen a range beyond the values, zero included.")
def covers_a_part_of_what_it_saw(case: ObserverCase) -> str | None:
    """The range is finite, float32, not empty, and within the largest magnitude seen."""
    batches = [images(), 2 * images(seed=1) + 0.5]
    low, high = case.after(*batches).range()
    if low.dtype is not torch.float32 or high.dtype is not torch.float32:
        return f"the range is {low.dtype}."
    bound = max(float(batch.abs().max()) for batch in batches) * (1 + 1e-5)
    inside = -bound <= float(low) <= float(high) <= bound and float(high - low) > 0
    return (
        None if inside else f"within +-{bound:.4g} it gave {float(low):.4g} to {float(high):.4g}."
    )


@OBSERVER.contract("Reduce over every dimension but `axis`, and let channels share nothing.")
def keeps_channels_apart(case: ObserverCase) -> str | None:
    """With an axis there is a range for each index, which the other indices do not move."""
    batch = images()
    louder = batch.clone()
    louder[:, 0] *= 100
    low, high = case.after(batch, axis=1).range()
    if low.shape != (3,) or high.shape != (3,):
        return f"for 3 channels the range has the shape {tuple(low.shape)}."
    other_low, other_high = case.after(louder, axis=1).range()
    if not (torch.equal(low[1:], other_low[1:]) and torch.equal(high[1:], other_high[1:])):
        return "a louder channel 0 moved the range of another."
    return "a channel 100 times louder has the same range." if high[0] == other_high[0] else None


@OBSERVER.contract("Divide by nothing that may be 0, and let a range of one point be one.")
def survives_a_constant(case: ObserverCase) -> str | None:
    """A tensor of equal values, zeros too, gives a finite range and a scale that is no NaN."""
    for value in (0.0, 3.0, -3.0):
        for axis in (None, 1):
            low, high = case.after(torch.full((2, 3, 4, 4), value), axis=axis).range()
            scale, _ = _GRID.scale_and_zero_point(low, high)
            if not (scale.isfinite().all() and (scale > 0).all()):
                return f"for {value:g} everywhere the scale is {scale.flatten()[0]}."
    return None


@OBSERVER.contract("Return at once where `x.numel() == 0`.")
def passes_over_an_empty_tensor(case: ObserverCase) -> str | None:
    """A batch without values changes nothing."""
    batch = images()
    ranges = [case.after(*batches).range() for batches in ((batch,), (batch[:0], batch, batch[:0]))]
    same = all(torch.equal(a, b) for a, b in zip(*ranges, strict=True))
    return None if same else "the range differs from that without it."


@OBSERVER.contract("Let NaN and Inf reach the range, as min and max do; clip no NaN away.")
def tells_nan_and_inf(case: ObserverCase) -> str | None:
    """A NaN or Inf makes the range not finite, or raises QuantizationError."""
    for value in (torch.nan, torch.inf, -torch.inf):
        batch = images()
        batch[0, 0, 0, 0] = value
        quantizer = AffineFakeQuantizer(_GRID, case.technique.build(grid=_GRID))
        try:
            quantizer.observe(batch)
        except QuantizationError:
            continue
        if quantizer.scale.isfinite().all():
            return f"with a {value} among the values the scale was {float(quantizer.scale):.3g}."
    return None


@OBSERVER.contract("Give every buffer its first value in `restart`.")
def forgets_at_restart(case: ObserverCase) -> str | None:
    """After `restart` it is as new, even after a NaN."""
    batch = images()
    broken = torch.full_like(batch, torch.nan)
    for before in (10 * images(seed=1), broken):
        module = case.technique.build(grid=_GRID)
        try:
            module(before)
        except QuantizationError:
            continue
        module.restart()
        module(batch)
        wanted = case.after(batch).range()
        if not all(torch.equal(a, b) for a, b in zip(module.range(), wanted, strict=True)):
            return "the range still depends on what was seen before."
    return None


@OBSERVER.contract("Keep what was seen in buffers, of shapes that loading can change.")
def reloads(case: ObserverCase) -> str | None:
    """The state_dict of one module makes another go on alike."""
    for axis in (None, 1):
        module = case.after(images(), axis=axis)
        again = case.technique.build(axis, grid=_GRID)
        again.load_state_dict(state_of(module))
        for step in (module, again):
            step(images(seed=1))
        if not all(torch.equal(a, b) for a, b in zip(module.range(), again.range(), strict=True)):
            return f"with axis {axis} the ranges differ after the next batch."
    return None


@OBSERVER.contract("Use no randomness, and nothing that can't be copied.")
def copies_and_repeats(case: ObserverCase) -> str | None:
    """The same batches give the same range, and so does a deep copy."""
    module, again = case.after(images()), case.after(images())
    for other, words in ((again, "a second module"), (copy.deepcopy(module), "the copy")):
        if not all(torch.equal(a, b) for a, b in zip(module.range(), other.range(), strict=True)):
            return f"{words} has another range."
    return None


@OBSERVER.contract("Decorate `forward` with `torch.no_grad()`.")
def holds_no_graph(case: ObserverCase) -> str | None:
    """The range of a tensor that needs a gradient needs none."""
    low, high = case.after(images().requires_grad_()).range()
    return "it does." if low.requires_grad or high.requires_grad else None


@OBSERVER.contract(
    "Share what was seen across ranks while `synchronized` is true; RangeObserver does, see "
    "`micronet.quantization.share`.",
    applies=lambda _: can_fork(),
)
def agrees_across_ranks(case: ObserverCase) -> str | None:
    """Ranks that see different batches end with the same range, and it knows both batches."""

    def work(rank: int) -> dict[str, Tensor]:
        low, high = case.after((1 + 9 * rank) * images(seed=rank)).range()
        return {"low": low, "high": high}

    first, second = on_two_ranks(work)
    if differing := difference(first, second):
        return f"between the ranks {differing}."
    alone = case.after(images(seed=0)).range()[1]
    return "the louder rank was not heard." if first["high"] <= 2 * alone else None
