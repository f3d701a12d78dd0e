"""The fuser kind: folds layers into their neighbours without changing what the model computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class Fuser(ABC):
    """Contract of a fuser, which the core holds each to: the outputs stay the same."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("fuse")
        if own is None or hasattr(own, "__wrapped__"):
            return

        @wraps(own)
        def fuse(self: Fuser, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
            from micronet.graph import check_same_function

            fused: nn.Module = own(self, model, example_inputs)
            if example_inputs:
                what = f"The fuser {type(self).__name__}"
                check_same_function(model, fused, example_inputs, what=what, quantizers="weights")
            return fused

        cls.fuse = fuse  # type: ignore[method-assign]

    @abstractmethod
    def fuse(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        """A copy of `model` with fewer layers and, in eval mode, the same outputs.

        Which layers are fused depends on the model's structure alone, not on its weights.

        Raises:
            ChangedFunctionError: The outputs for the example inputs would change.
        """
