"""The batch that shows what a model takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from micronet.errors import MicronetError
from micronet.structure import leaves, nest


def check_example_inputs(example_inputs: Any, *, required: bool = False) -> None:
    """Refuses what is no tuple of tensors, before torch unpacks a bare tensor along its batch.

    An entry may also be a dict, list or tuple of tensors, however nested; `None` stands for what is
    left out.

    Args:
        example_inputs: The positional arguments of a forward.
        required: Whether an empty tuple is refused too, which stands for unknown inputs.

    Raises:
        MicronetError: It is something else.
    """
    if isinstance(example_inputs, Tensor):
        raise MicronetError(
            "example_inputs must be a tuple of tensors, got a tensor; write (images,)."
        )
    if not isinstance(example_inputs, tuple):
        raise MicronetError(
            f"example_inputs must be a tuple of tensors, got {type(example_inputs).__name__}."
        )
    kinds = [type(leaf) for leaf in leaves(nest(example_inputs))]
    if (required and not kinds) or not all(issubclass(kind, Tensor) for kind in kinds):
        others = sorted({kind.__name__ for kind in kinds if not issubclass(kind, Tensor)})
        raise MicronetError(
            f"example_inputs must be a tuple of tensors, got {' and '.join(others) or 'none'} "
            f"in it; an entry may also be a dict, list or tuple of tensors."
        )
