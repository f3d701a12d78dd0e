"""How the learning rate goes over a training."""

from __future__ import annotations

import math

import attrs

ONE_CYCLE_WARMUP = 0.3
"""The part of one cycle in which the rate climbs."""
_START = 1 / 25
"""The first rate of a climb, as a part of the highest."""
_DROPS = (0.5, 0.75)
"""Where the rate of `step` falls to a tenth."""


@attrs.frozen
class Schedule:
    """The learning rate as a factor of the highest one.

    After Smith and Topin, "Super-Convergence" (2018), for one cycle, and Goyal et al., "Accurate,
    Large Minibatch SGD" (2017), for the climb before the others.

    Args:
        name: `one_cycle` and `cosine` go down to 0 along a cosine, `step` to a tenth at half and
            again at three quarters of the training, and `constant` stays.
        warmup: The part of the training in which the rate climbs, 0 or more and less than 1;
            `None` is 0.3 for `one_cycle`, and 0 for the others.
        steps: Of the whole training.
    """

    name: str
    warmup: float | None
    steps: int

    def __call__(self, step: int) -> float:
        """The factor of a step, the first being 0."""
        climb = self._climb
        done = step / self.steps
        if done < climb:
            return _START + (1 - _START) * (1 - math.cos(math.pi * done / climb)) / 2
        if self.name == "constant":
            return 1.0
        if self.name == "step":
            return 0.1 ** sum(done >= drop for drop in _DROPS)
        return (1 + math.cos(math.pi * min(1.0, (done - climb) / (1 - climb)))) / 2

    @property
    def _climb(self) -> float:
        if self.warmup is not None:
            return self.warmup
        return ONE_CYCLE_WARMUP if self.name == "one_cycle" else 0.0
