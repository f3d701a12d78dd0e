"""Whether the engines of a recipe can run what it quantizes to, and run here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from micronet.recipe import Deploy, Quantize
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
    own_model: bool,
) -> tuple[str, ...]:
    """Refuses a scheme that an engine can't run, and an engine that can't run here.

    So is int8 of a model that nothing quantizes; one of the user's own may be so as it begins.
    A recipe that no machine can run is told so on machines without the engine too.

    Returns:
        Remarks on a scheme that an engine runs slowly, and on an engine that need not run here.
    """
    schemes: list[Scheme] = []
    quantized, remarks = own_model, []
    for index, (step, technique) in enumerate(zip(steps, techniques, strict=True)):
        if isinstance(technique, Quantizer):
            schemes = technique.schemes
        quantized |= isinstance(step, Quantize) or step in (None, Quantize)
        if not isinstance(step, Deploy) or not isinstance(technique, DeployBackend):
            continue
        lacking, wrong = technique.available(), []
        if not quantized and getattr(technique, "precision", None) == "int8":
            wrong.append("precision int8 needs a quantize step before deploy: the model is float.")
        else:
            wrong += filter(None, map(technique.unsuitable, schemes))
        slow = [scheme for scheme in schemes if not technique.is_fast(scheme)]
        if slow and not wrong:
            assert technique.fast is not None
            remarks.append(
                f"{step.backend} is fast with {_in_words(technique.fast)}; this recipe quantizes "
                f"to {' and '.join(map(_in_words, slow))}."
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
