"""Which order of a recipe's steps makes sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from micronet.errors import listed, nearest
from micronet.recipe import (
    FLOAT,
    Calibrate,
    Deploy,
    Evaluate,
    Freeze,
    Fuse,
    Prune,
    Quantize,
    Step,
    Train,
    float_index,
    step_name,
)
from micronet.recipe.draft import DraftStep
from micronet.recipe.plain_yaml import Key
from micronet.techniques import Quantizer


def faults_in_order(
    steps: Sequence[DraftStep], techniques: Sequence[Any]
) -> Iterator[tuple[Key, str]]:
    """Each step, or key of one, that makes no sense where it stands, and why.

    Nothing is said of what follows a step that is unknown.

    Args:
        steps: Those of a recipe.
        techniques: For each the instance of its technique, if it names one that is known.
    """
    kinds: list[Any] = [step if isinstance(step, type) else type(step) for step in steps]
    stage = _Stage()
    for index, (step, kind, technique) in enumerate(zip(steps, kinds, techniques, strict=True)):
        if step is None:
            return
        key: Key = ("steps", index, kind.key)
        sparse = isinstance(step, Train) and step.sparsity is not None
        if sparse and not {Prune, type(None)} & {*kinds[index + 1 :]}:
            yield (*key, "sparsity"), "sparsity prepares pruning, and no prune step follows."
        if isinstance(step, Train) and (told := _fault_of_teacher(steps, index, step)):
            yield (*key, "teacher"), told
        reason = stage.why_not(kind, step)
        if reason is not None:
            yield key, reason
        stage.enter(kind, step, technique)


def _fault_of_teacher(steps: Sequence[DraftStep], index: int, step: Train) -> str | None:
    """Why a train step has no such teacher, `None` if it has, or asks for none."""
    if step.teacher is None or ":" in step.teacher:
        if step.teacher is None and step.features:
            return "features are the teacher's, and there is no teacher."
        return None
    if step.teacher == FLOAT:
        if float_index(steps) < index:
            return None
        return "the float model can't be its own teacher: no step before this one changes it."
    earlier = [
        step_name(number, each.key)
        for number, each in enumerate(steps[:index], 1)
        if each is not None and not isinstance(each, (Quantize, Deploy))
    ]
    if step.teacher in earlier:
        return None
    return (
        f"{step.teacher!r} is no teacher.{nearest(step.teacher, [FLOAT, *earlier])} Allowed: "
        f"{listed([FLOAT, *earlier, 'package.module:callable'])}."
    )


def work_on_batch_norms(steps: Sequence[Step]) -> bool:
    """Whether a step would do nothing to a model without batch norms."""
    for step in steps:
        if isinstance(step, Quantize):
            return False
        if isinstance(step, Calibrate) or (isinstance(step, Train) and step.sparsity is not None):
            return True
    return False


_NEEDS_DATA = (
    "needs a train or calibrate step after quantize: the quantizers have seen no data yet."
)
_NOTHING_TO_CALIBRATE = "calibrate has nothing to do: this quantizer's grids need no data."
_CALIBRATE_NEEDS = "calibrate needs a quantize or a prune step before it."
_NO_BATCH_NORMS = (
    "calibrate must come before fuse, which folds away the batch norms that it measures anew."
)
_FREEZE_NEEDS = (
    "freeze needs a quantize step before it, and after that a train or calibrate step that gives "
    "the observers data."
)


@attrs.define
class _Stage:
    """How far the model is at some step of a recipe.

    Args:
        pruned: A pruner has made it smaller.
        quantized: A quantizer has prepared it.
        needs_data: That quantizer's observers learn from data.
        ready: Its quantizers, if any, have seen data.
        fused: What has fused it.
    """

    pruned: bool = False
    quantized: bool = False
    needs_data: bool = False
    ready: bool = True
    fused: frozenset[str] = frozenset()

    def why_not(self, kind: type[Any], step: DraftStep) -> str | None:
        """Why a step makes no sense now, `None` if it does."""
        reasons: dict[type[Any], tuple[tuple[bool, str], ...]] = {
            Prune: (
                (self.quantized, "prune must come before quantize: grids fit the channels seen."),
                (bool(self.fused), "prune must come before fuse: it looks at batch norms."),
            ),
            Quantize: ((self.quantized, "the model is quantized already."),),
            Calibrate: (
                (not (self.quantized or self.pruned), _CALIBRATE_NEEDS),
                (not self.quantized and bool(self.fused), _NO_BATCH_NORMS),
                (self.quantized and self.ready and not self.needs_data, _NOTHING_TO_CALIBRATE),
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
        return next((why for wrong, why in reasons.get(kind, ()) if wrong), None)

    def enter(self, kind: type[Any], step: DraftStep, technique: Any) -> None:
        """The stage after a step; what it lacked counts as given, so that it is told once."""
        if kind is Quantize:
            known = isinstance(technique, Quantizer)
            self.quantized, self.needs_data = True, technique.needs_data if known else True
            self.ready = not (known and technique.needs_data)
        elif kind in (Train, Calibrate, Freeze, Evaluate, Deploy):
            self.ready = True
        elif isinstance(step, Fuse):
            self.fused |= {step.fuser}
        elif kind is Prune:
            self.pruned = True
