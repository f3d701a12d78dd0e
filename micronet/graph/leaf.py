"""Modules that graphs call as one operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn


class Leaf(nn.Module):
    """A module that a graph calls as a whole, whatever its forward does."""


class Probe(Leaf):
    """A leaf that watches or rounds one tensor, and can be switched off."""

    mode: Literal["quantize", "calibrate", "off"]


@contextmanager
def probes_off(model: nn.Module) -> Iterator[None]:
    """Every probe passes its tensor on unchanged for a while."""
    before = [(probe, probe.mode) for probe in model.modules() if isinstance(probe, Probe)]
    for probe, _ in before:
        probe.mode = "off"
    try:
        yield
    finally:
        for probe, mode in before:
            probe.mode = mode
