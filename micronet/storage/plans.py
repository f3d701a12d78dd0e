"""Pruning plans as a text that is short beside the weights of a small model.

Layers share most of their channels with others, so each set of channels is written once: as runs of
indices, `0-63`, or where that is shorter as a mask of bits in base64, `:` before it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence

import attrs
import numpy as np

from micronet.errors import DataError
from micronet.plain import structured
from micronet.pruning import Kept, PruningPlan

_RUNS = re.compile(r"(\d{1,7}(-\d{1,7})?(,\d{1,7}(-\d{1,7})?)*)?")
_MOST = 2**20
"""Channels of a layer."""


def write_plans(plans: Sequence[PruningPlan]) -> str:
    """Plans in the order in which they were made, as JSON that `read_plans` takes."""
    channels: dict[tuple[int, ...], int] = {}

    def place(kept: tuple[int, ...]) -> int:
        return channels.setdefault(kept, len(channels))

    layers = [
        {
            name: [place(kept.outputs), place(kept.inputs), kept.groups, kept.axis]
            for name, kept in plan.layers.items()
        }
        for plan in plans
    ]
    content = {"channels": [_written(kept) for kept in channels], "plans": layers}
    return json.dumps(content, separators=(",", ":"))


@attrs.frozen
class _Content:
    """What `write_plans` gives, read back."""

    channels: tuple[str, ...]
    plans: tuple[dict[str, tuple[int, ...]], ...]


def read_plans(text: str) -> tuple[PruningPlan, ...]:
    """The plans in a text of `write_plans`, or in a list of `PruningPlan.to_json`'s.

    Raises:
        DataError: It is neither.
    """
    try:
        plain = json.loads(text)
        if isinstance(plain, list):
            return tuple(map(PruningPlan.from_json, structured(plain, list[str])))
        content = structured(plain, _Content)
        channels = [_read(kept) for kept in content.channels]
        return tuple(
            PruningPlan({name: _kept(channels, numbers) for name, numbers in layers.items()})
            for layers in content.plans
        )
    except (ValueError, IndexError, RecursionError) as error:
        raise DataError(str(error)) from error


def _kept(channels: Sequence[tuple[int, ...]], numbers: Sequence[int]) -> Kept:
    outputs, inputs, groups, axis = numbers
    if min(outputs, inputs, axis) < 0 or groups < 1:
        raise ValueError(f"no layer is kept as {list(numbers)}")
    return Kept(channels[outputs], channels[inputs], groups, axis)


def _written(kept: tuple[int, ...]) -> str:
    runs = ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in _runs(kept))
    if not kept or list(kept) != sorted(set(kept)):
        return runs
    mask = np.zeros(kept[-1] + 1, bool)
    mask[list(kept)] = True
    bits = ":" + base64.b64encode(np.packbits(mask).tobytes()).decode()
    return min(runs, bits, key=len)


def _runs(kept: Iterable[int]) -> list[list[int]]:
    """The first and last index of each run of indices that follow each other."""
    runs: list[list[int]] = []
    for index in kept:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return runs


def _read(text: str) -> tuple[int, ...]:
    if text.startswith(":"):
        bits = np.frombuffer(base64.b64decode(text[1:], validate=True), np.uint8)
        return tuple(np.flatnonzero(np.unpackbits(bits)).tolist())
    if _RUNS.fullmatch(text) is None:
        raise ValueError(f"{text[:20]!r} are no channels")
    ends = [[int(end) for end in run.split("-")] for run in text.split(",") if run]
    if sum(run[-1] - run[0] + 1 for run in ends) > _MOST:
        raise ValueError("no layer has so many channels")
    return tuple(index for run in ends for index in range(run[0], run[-1] + 1))
