"""Integer-arithmetic-only quantization (Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from micronet import registry
from micronet.errors import OptionError
from micronet.options import option
from micronet.techniques import Observer, Quantizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet.quantization import FakeQuantizer


@attrs.frozen(kw_only=True)
class IAO(Quantizer):
    """Weights and activations on affine integer grids, rounded half to even.

    Symmetric: scale = max |x| / (2^(bits-1) - 1), zero point 0; weights use codes
    +-(2^(bits-1) - 1), activations also the one below. Asymmetric: scale and zero point from both
    ends of the range; weights use codes 0 to 2^bits - 2, activations 0 to 2^bits - 1. Gradients
    pass straight through where the value lies in the range.
    """

    w_bits: int = option(8, ge=2, le=16, doc="Width of the weights' codes.")
    a_bits: int = option(8, ge=2, le=16, doc="Width of the activations' codes.")
    w_symmetric: bool = option(default=True, doc="Whether the weights' zero point is 0.")
    a_symmetric: bool = option(default=False, doc="Whether the activations' zero point is 0.")
    per_channel: bool = option(
        default=True, doc="Whether each output channel of a weight has a scale of its own."
    )
    w_observer: str | Mapping[str, Any] = option(
        "minmax", doc="Observer of the weights' ranges: its name, or its name and options."
    )
    a_observer: str | Mapping[str, Any] = option(
        "moving_average", doc="Observer of the activations' ranges: its name, or name and options."
    )

    def __attrs_post_init__(self) -> None:
        for choice in (self.w_observer, self.a_observer):
            _observer(choice)

    def prepare(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        from micronet.quantization import place_quantizers

        return place_quantizers(
            model,
            example_inputs,
            weight=self._weight_quantizer,
            activation=self._activation_quantizer,
        )

    def _weight_quantizer(self, layer: nn.Module) -> FakeQuantizer:
        from micronet.quantization import AffineFakeQuantizer, Grid, output_axis

        axis = output_axis(layer) if self.per_channel else None
        grid = Grid(self.w_bits, self.w_symmetric, narrow=True)
        observer = _observer(self.w_observer).build(axis, grid=grid)
        quantizer = AffineFakeQuantizer(grid, observer, axis=axis, whole=True)
        quantizer.observe(layer.weight.detach())  # type: ignore[operator]
        return quantizer

    def _activation_quantizer(self) -> FakeQuantizer:
        from micronet.quantization import AffineFakeQuantizer, Grid

        grid = Grid(self.a_bits, self.a_symmetric)
        observer = _observer(self.a_observer).build(grid=grid)
        return AffineFakeQuantizer(grid, observer)


def _observer(choice: str | Mapping[str, Any]) -> Observer:
    """`minmax`, or `{name: percentile, percentile: 0.999}`."""
    named = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = named.pop("name", None)
    if not isinstance(name, str):
        raise OptionError(f"An observer needs a name, got {choice!r}.")
    observer: Observer = registry.create("observer", name, **named)
    return observer
