"""Batches in pieces, for engines that do not take every number of images; without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micronet.techniques import Signature

Run = Callable[[Mapping[str, NDArray[Any]]], Sequence[NDArray[Any]]]
"""An engine's call: all outputs for inputs by name."""


def batch_of(signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> int | None:
    """How many images there are; `None` where no input has a batch of any size."""
    return next((len(inputs[s.name]) for s in signature.input_specs if s.has_batch), None)


def cut(
    signature: Signature, inputs: Mapping[str, NDArray[Any]], start: int, end: int
) -> dict[str, NDArray[Any]]:
    """Some images of a batch; inputs without a batch as they are."""
    return {
        spec.name: inputs[spec.name][start:end] if spec.has_batch else inputs[spec.name]
        for spec in signature.input_specs
    }


def run_in_pieces(
    run: Run,
    signature: Signature,
    inputs: Mapping[str, NDArray[Any]],
    pieces: Iterable[tuple[int, int]],
) -> Sequence[NDArray[Any]]:
    """What an engine gives for a batch that it is given in pieces.

    Args:
        run: Runs a piece.
        signature: One whose batches can be cut, unless there is one piece.
        inputs: A whole batch.
        pieces: Start and end of each.
    """
    parts = [run(cut(signature, inputs, start, end)) for start, end in pieces]
    if len(parts) == 1:
        return parts[0]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
