"""What a training tells of each epoch, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from micronet.techniques import Figure

EPOCH, LOSS, RATE = "epoch", "train_loss", "lr"
"""What is told beside the task's figures."""

Curve = list[dict[str, float]]
"""For each epoch its number, mean loss, last learning rate, and the task's figures."""


def best_epoch(curve: Sequence[Mapping[str, float]], main: Figure) -> int:
    """The place of the first best epoch, by the task's main figure; -1 before there is one."""
    sign = 1 if main.higher_is_better else -1
    values = [sign * point[main.name] for point in curve]
    values = [-math.inf if math.isnan(value) else value for value in values]
    return values.index(max(values)) if values else -1


def without_progress(curve: Sequence[Mapping[str, float]], main: Figure) -> int:
    """Epochs since the best one."""
    return len(curve) - 1 - best_epoch(curve, main)
