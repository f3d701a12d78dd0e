"""Whether the engines of a recipe can run what it quantizes to, and run here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from micronet.recipe import Deploy
from micronet.recipe.draft import DraftStep
from micronet.recipe.faults import Faults
from micronet.recipe.place import Place
from micronet.techniques import DeployBackend, Quantizer, Scheme


def check_engines(
    steps: Sequence[DraftStep],
    techniques: tuple[Any, ...],
    place: Place,
    faults: Faults,
    *,
    here: bool,
) -> tuple[str, ...]:
    """Refuses a scheme that an engine can't run, and an engine that can't run here.

    A recipe that no machine can run is told so on machines without the engine too.

    Returns:
        Remarks on a scheme that an engine runs slowly, and on an engine that need not run here.
    """
    scheme, remarks = None, []
    for index, (step, technique) in enumerate(zip(steps, techniques, strict=True)):
        if isinstance(technique, Quantizer):
            scheme = technique.scheme
        if not isinstance(step, Deploy) or not isinstance(technique, DeployBackend):
            continue
        lacking, wrong = technique.available(), []
        if scheme is not None and (reason := technique.unsuitable(scheme)):
            wrong.append(reason)
        elif scheme is not None and not technique.is_fast(scheme):
            assert technique.fast is not None
            remarks.append(
                f"{step.backend} is fast with {_in_words(technique.fast)}; this recipe quantizes "
                f"to {_in_words(scheme)}."
            )
        if lacking is not None:
            told = f"{step.backend} can't run here: {lacking}."
            (wrong if here or wrong else remarks).append(told)
        if wrong:
            faults.add(place.error(("steps", index, step.key, "backend"), " ".join(wrong)))
    return tuple(remarks)


def _in_words(scheme: Scheme) -> str:
    kinds = {True: "symmetric", False: "asymmetric"}
    return (
        f"{kinds[scheme.w_symmetric]} {scheme.w_bits:g}-bit weights per "
        f"{'channel' if scheme.per_channel else 'layer'} and {kinds[scheme.a_symmetric]} "
        f"{scheme.a_bits:g}-bit activations"
    )
