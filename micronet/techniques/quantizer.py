"""The quantizer kind: puts fake quantization into a model and takes it to integers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from micronet.techniques.scheme import Scheme

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn


class Quantizer(ABC):
    """Contract of a quantizer.

    Only `prepare` is the technique's own: it places `micronet.quantization.FakeQuantizer`s.
    The other steps of a quantized model's life work on those and are the same for all.
    """

    needs_data: ClassVar[bool] = True
    """Whether a prepared model must be trained or calibrated before its outputs mean anything."""

    @property
    def separable(self) -> bool:
        """Whether what `prepare` gives a layer depends on that layer alone.

        Then single layers can have other options than the rest.
        """
        return True

    @property
    def scheme(self) -> Scheme | None:
        """What engines should know of it before any training; `None` if there is no saying."""
        return None

    @property
    def schemes(self) -> list[Scheme]:
        """Of all layers, where they differ."""
        return [] if self.scheme is None else [self.scheme]

    @abstractmethod
    def prepare(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        """A trainable copy of `model` with fake quantization; `model` itself stays as it is.

        Every state_dict key of `model` keeps its name, so that float weights load into the
        result.

        Args:
            model: A float model.
            example_inputs: What its forward takes, batch first. Empty if unknown: the model is
                not traced, and what lies between its weighted layers stays in float.
        """

    def calibrate(self, model: nn.Module, batches: Iterable[Any]) -> None:
        """Lets the observers of a prepared model see data; weights stay as they are (PTQ).

        Args:
            model: A prepared model.
            batches: Inputs, batch first: a tensor or NumPy array each, a tuple of them for a
                model with several inputs, or a dictionary by the names that forward gives them. A
                data loader's targets are left out where forward takes nothing beyond its inputs.

        Raises:
            QuantizationError: A tensor holds NaN or Inf; the message names the layer. Or it is
                not clear which parts of a batch are inputs.
        """
        from micronet.quantization import calibrate

        calibrate(model, batches)

    def freeze(self, model: nn.Module) -> None:
        """Stops observers and batch-norm statistics of a trained or calibrated model (QAFT).

        Weights go on learning on the fixed grid.

        Raises:
            QuantizationError: The observers have seen no data yet.
        """
        from micronet.quantization import freeze

        freeze(model)

    def convert(self, model: nn.Module) -> nn.Module:
        """The inference form: a copy whose quantized weights are integer codes with scales."""
        from micronet.quantization import convert

        return convert(model)
