"""The classic models, built by the registry."""

MODEL_TYPES = ("nin", "nin_gc", "resnet")
"""What the classic `--model_type` counts; also the names of the files that hold them."""


def name_of(model_type: int | None) -> str:
    """The model's name; without a number that of nin_gc, the classic default."""
    return MODEL_TYPES[1 if model_type is None else model_type]
