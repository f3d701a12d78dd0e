"""Recipes: what a run does, in Python or in YAML, and how that is checked before any work."""

from micronet.recipe.steps import (
    STEPS,
    Calibrate,
    Deploy,
    Evaluate,
    Freeze,
    Fuse,
    Named,
    Prune,
    Quantize,
    Recipe,
    Step,
    Train,
    own_fields,
    technique_field,
    technique_of,
    to_plain,
)

__all__ = [
    "STEPS",
    "Calibrate",
    "Deploy",
    "Evaluate",
    "Freeze",
    "Fuse",
    "Named",
    "Prune",
    "Quantize",
    "Recipe",
    "Step",
    "Train",
    "own_fields",
    "technique_field",
    "technique_of",
    "to_plain",
]
