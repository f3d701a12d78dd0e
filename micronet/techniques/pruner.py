"""The pruner kind: removes channels, physically."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet.pruning import PruningPlan


@attrs.frozen
class PruningResult:
    """A pruned model and how it came about.

    Args:
        model: An ordinary, smaller module.
        plan: What was kept in each layer; `micronet.pruning.apply_plan` repeats it.
        reasons: For each layer left alone, why.
        remarks: Sentences for the user, such as one on a budget that could only nearly be met.
    """

    model: nn.Module
    plan: PruningPlan
    reasons: dict[str, str]
    remarks: tuple[str, ...] = ()


class Pruner(ABC):
    """Contract of a pruner."""

    def regularize(self, model: nn.Module, strength: float = 1e-4) -> None:
        """Adds the gradient of the sparsity term; called after `backward()`, before the step.

        The term is L1 on the gammas of every batch norm: strength * sign(gamma) (Liu et al.
        2017, "Learning Efficient Convolutional Networks through Network Slimming").

        Raises:
            PruningError: No batch norm has a gamma, so that the term would do nothing.
        """
        from micronet.pruning import add_l1_gradient

        add_l1_gradient(model, strength)

    @abstractmethod
    def prune(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> PruningResult:
        """A smaller copy of `model`; `model` itself stays as it is.

        Raises:
            PruningError: Nothing can be pruned, or the smaller model does not run.
        """

    def groups(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[tuple[str, ...]]:  # noqa: ARG002 (for those who can)
        """The layers that this pruner could make smaller, in the order of the forward pass.

        Each entry names layers that share their channels. `micronet sensitivity` prunes one after
        the other; a pruner that it should work for needs the options `percent` and `keep`.

        Raises:
            PruningError: This pruner can't tell, or can't follow the model.
        """
        from micronet.errors import PruningError

        raise PruningError(f"{type(self).__name__} does not tell which layers it can prune.")
