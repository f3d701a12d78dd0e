"""Regression: numbers for each image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import attrs

from micronet.errors import DataError, RunError, describe_value
from micronet.options import option
from micronet.techniques import Figure, Metric, Task

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class Regression(Task):
    """Outputs are floats: one or several for each image, or a map of them, as of depths.

    A target has the shape of one image's outputs; a single number may be [] or [1] on either side.
    """

    loss_function: Literal["mse", "l1", "smooth_l1"] = option("mse", doc="What training minimizes.")
    tolerance: float = option(
        0.05,
        gt=0,
        doc="Two values agree that differ by less than this fraction of the root mean square of "
        "the batch's values.",
    )

    shape: tuple[int, ...] | None = option(
        None, doc="Of one image's outputs; the model tells it if not given."
    )

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (
            Figure("mean_absolute_error", "MAE", higher_is_better=False, fraction=False),
            Figure("rmse", "RMSE", higher_is_better=False, fraction=False),
        )

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

        losses = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}
        return losses[self.loss_function](outputs, targets.reshape(outputs.shape).to(outputs.dtype))

    def metric(self) -> Metric:
        from micronet_tasks.differences import Differences

        return Differences()

    def agreement(self, outputs: Any, others: Any) -> Tensor:
        one: Tensor = outputs.double().reshape(len(outputs), -1)
        other: Tensor = others.double().reshape(len(others), -1)
        scale = (((one**2).mean() + (other**2).mean()) / 2).sqrt()
        return ((one - other).abs() <= self.tolerance * scale).double().mean(1)

    def check_target(self, target: Any, image: Tensor) -> Any:  # noqa: ARG002 (part of the contract)
        import torch

        try:
            values = torch.as_tensor(target, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"must give numbers as the target, got {describe_value(target)}"
            ) from error
        if not bool(values.isfinite().all()):
            raise DataError("must give finite numbers as the target, got NaN or Inf")
        if self.shape is None:
            return values
        if values.numel() != math.prod(self.shape) or (
            values.dim() > 1 and values.shape != self.shape
        ):
            raise DataError(
                f"must give targets {list(self.shape)} as the model does, got {list(values.shape)}"
            )
        return values.reshape(self.shape)

    def fitted(self, outputs: Any) -> Task:
        if not (hasattr(outputs, "is_floating_point") and outputs.is_floating_point()):
            raise RunError(f"must give a tensor of floats, got {describe_value(outputs)}")
        return attrs.evolve(self, shape=tuple(outputs.shape[1:]))
