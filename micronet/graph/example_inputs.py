"""The batch that shows what a model takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from micronet.errors import MicronetError


def check_example_inputs(example_inputs: Any) -> None:
    """Refuses what is no tuple of tensors, before torch unpacks a bare tensor along its batch.

    Raises:
        MicronetError: It is something else.
    """
    if isinstance(example_inputs, Tensor):
        raise MicronetError(
            "example_inputs must be a tuple of tensors, got a tensor; write (images,)."
        )
    if not isinstance(example_inputs, tuple) or not all(
        isinstance(value, Tensor) for value in example_inputs
    ):
        raise MicronetError(
            f"example_inputs must be a tuple of tensors, got {type(example_inputs).__name__}."
        )
