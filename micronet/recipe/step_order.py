"""Which order of a recipe's steps makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from micronet.recipe import (
    Calibrate,
    Deploy,
    Evaluate,
    Freeze,
    Fuse,
    Prune,
    Quantize,
    Step,
    Train,
)
from micronet.recipe.file import Key
from micronet.techniques import Quantizer


def fault_in_order(steps: Sequence[Step], techniques: Sequence[Any]) -> tuple[Key, str] | None:
    """The first step, or key of one, that makes no sense where it stands, and why.

    Args:
        steps: Those of a recipe.
        techniques: For each the instance of its technique, if it names one.
    """
    stage = _Stage()
    for index, (step, technique) in enumerate(zip(steps, techniques, strict=True)):
        key: Key = ("steps", index, step.key)
        sparse = isinstance(step, Train) and step.sparsity is not None
        if sparse and not any(isinstance(later, Prune) for later in steps[index + 1 :]):
            return (*key, "sparsity"), "sparsity prepares pruning, and no prune step follows."
        reason = stage.why_not(step)
        if reason is not None:
            return key, reason
        stage.enter(step, technique)
    return None


_NEEDS_DATA = (
    "needs a train or calibrate step after quantize: the quantizers have seen no data yet."
)
_NOTHING_TO_CALIBRATE = "calibrate has nothing to do: this quantizer's grids need no data."
_FREEZE_NEEDS = (
    "freeze needs a quantize step before it, and after that a train or calibrate step that gives "
    "the observers data."
)


@attrs.define
class _Stage:
    """How far the model is at some step of a recipe.

    Args:
        quantized: A quantizer has prepared it.
        needs_data: That quantizer's observers learn from data.
        ready: Its quantizers, if any, have seen data.
        fused: What has fused it.
    """

    quantized: bool = False
    needs_data: bool = False
    ready: bool = True
    fused: frozenset[str] = frozenset()

    def why_not(self, step: Step) -> str | None:
        """Why a step makes no sense now, `None` if it does."""
        reasons: dict[type[Any], tuple[tuple[bool, str], ...]] = {
            Prune: (
                (self.quantized, "prune must come before quantize: grids fit the channels seen."),
                (bool(self.fused), "prune must come before fuse: it looks at batch norms."),
            ),
            Quantize: ((self.quantized, "the model is quantized already."),),
            Calibrate: (
                (not self.quantized, "calibrate needs a quantize step before it."),
                (self.ready and not self.needs_data, _NOTHING_TO_CALIBRATE),
            ),
            Fuse: (
                (
                    isinstance(step, Fuse) and step.fuser in self.fused,
                    "that fuser has fused the model already.",
                ),
            ),
            Freeze: ((not (self.quantized and self.ready), _FREEZE_NEEDS),),
            Evaluate: ((not self.ready, f"evaluate {_NEEDS_DATA}"),),
            Deploy: ((not self.ready, f"deploy {_NEEDS_DATA}"),),
        }
        return next((why for wrong, why in reasons.get(type(step), ()) if wrong), None)

    def enter(self, step: Step, technique: Any) -> None:
        """The stage after a step."""
        if isinstance(step, Quantize):
            assert isinstance(technique, Quantizer)
            self.quantized, self.needs_data = True, technique.needs_data
            self.ready = not technique.needs_data
        elif isinstance(step, (Train, Calibrate)):
            self.ready = True
        elif isinstance(step, Fuse):
            self.fused |= {step.fuser}
