"""Integer-arithmetic-only quantization (Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

from micronet import registry
from micronet.errors import OptionError, QuantizationError
from micronet.options import option
from micronet.techniques import DeployBackend, Observer, Quantizer, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet.quantization import FakeQuantizer


def _as_the_target(name: str) -> Any:
    """The default of an option that the target's fast scheme decides."""
    return attrs.Factory(lambda quantizer: getattr(_fast(quantizer.target), name), takes_self=True)


def _fast(target: str | None) -> Scheme:
    if target is None:
        return Scheme()
    backend: type[DeployBackend] = registry.get("deploy_backend", target)
    return backend.fast or Scheme()


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
    target: str | None = option(
        None, doc="The deploy backend whose fast scheme decides the three that follow."
    )
    w_symmetric: bool = option(
        _as_the_target("w_symmetric"),
        doc="Whether the weights' zero point is 0; without a target it is.",
    )
    a_symmetric: bool = option(
        _as_the_target("a_symmetric"),
        doc="Whether the activations' zero point is 0; without a target it is not.",
    )
    per_channel: bool = option(
        _as_the_target("per_channel"),
        doc="Whether each output channel of a weight has a scale of its own; without a target it "
        "has.",
    )
    w_observer: str | Mapping[str, Any] = option(
        "minmax", doc="Observer of the weights' ranges: its name, or its name and options."
    )
    a_observer: str | Mapping[str, Any] = option(
        "moving_average", doc="Observer of the activations' ranges: its name, or name and options."
    )

    fold_bn: Literal["after", "batch", "running"] = option(
        "after",
        doc="Statistics that fold batch norms into weights while training: none, so that a fuser "
        "folds them afterwards; the batch's, at a second convolution; or the running ones.",
    )
    equalize: bool = option(
        default=False,
        doc="Whether calibration first brings the channels of a tensor to similar ranges.",
    )
    rounding: Literal["nearest", "learned"] = option(
        "nearest",
        doc="Whether calibration rounds a weight to the nearest code, or up or down as the "
        "layer's output needs it.",
    )
    bias_correction: bool = option(
        default=False,
        doc="Whether calibration takes the mean error of each output channel off the bias.",
    )

    def __attrs_post_init__(self) -> None:
        for choice in (self.w_observer, self.a_observer):
            _observer(choice)

    @property
    def separable(self) -> bool:
        return self.fold_bn == "after" or self.per_channel

    @property
    def scheme(self) -> Scheme:
        return Scheme(
            self.w_bits, self.a_bits, self.w_symmetric, self.a_symmetric, self.per_channel
        )

    def prepare(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        from micronet.quantization import place_quantizers

        prepared = place_quantizers(
            model,
            example_inputs,
            weight=self.weight_quantizer,
            activation=self.activation_quantizer,
        )
        # With a scale for each channel, a channel's factor moves its scale and no integer.
        if self.fold_bn != "after" and not self.per_channel:
            self._fold_while_training(prepared, example_inputs)
        return prepared

    def calibrate(self, model: nn.Module, batches: Iterable[Any]) -> None:
        """Lets the observers see data; where options ask for it, weights and biases change too.

        With `equalize`, `rounding` or `bias_correction` all batches are held in memory.

        Raises:
            QuantizationError: A tensor holds NaN or Inf; or the model does not suit an option.
        """
        from micronet.graph.batches import check_batches, positional
        from micronet_iao.equalization import equalize
        from micronet_iao.ranks import follow_first_rank
        from micronet_iao.reconstruction import reconstruct

        learned = self.rounding == "learned"
        if not (self.equalize or self.bias_correction or learned):
            super().calibrate(model, batches)
            return
        _refuse_frozen(model)
        check_batches(batches)
        batches = list(batches)
        calls = [positional(model, batch) for batch in batches]
        if self.equalize and calls:
            equalize(model, calls)
            follow_first_rank(model)
        super().calibrate(model, batches)
        if self.bias_correction or learned:
            reconstruct(model, calls, learned=learned, bias_correction=self.bias_correction)
            follow_first_rank(model)

    def weight_quantizer(self, layer: nn.Module) -> FakeQuantizer:
        """The quantizer of a layer's weight, fitted to it."""
        from micronet.quantization import AffineFakeQuantizer, output_axis, weight_of

        axis = output_axis(layer) if self.per_channel else None
        quantizer = AffineFakeQuantizer(**self._weight_options(axis), axis=axis)
        quantizer.observe(weight_of(layer).detach())
        return quantizer

    def activation_quantizer(self) -> FakeQuantizer:
        """The quantizer of an activation, which has seen no data."""
        from micronet.quantization import AffineFakeQuantizer, Grid

        grid = Grid(self.a_bits, self.a_symmetric)
        return AffineFakeQuantizer(grid, _observer(self.a_observer).build(grid=grid))

    def _weight_options(self, axis: int | None) -> dict[str, Any]:
        from micronet.quantization import Grid

        grid = Grid(self.w_bits, self.w_symmetric, narrow=True)
        observer = _observer(self.w_observer).build(axis, grid=grid)
        return {"grid": grid, "observer": observer, "whole": True}

    def _fold_while_training(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
        from torch.nn.modules.batchnorm import _BatchNorm

        from micronet.graph import conv_bn_pairs
        from micronet.quantization import weight_of
        from micronet_iao.folded import FoldedWeightQuantizer, observe_batch_variance

        for layer_name, bn_name in conv_bn_pairs(model, example_inputs):
            layer, bn = model.get_submodule(layer_name), model.get_submodule(bn_name)
            assert isinstance(bn, _BatchNorm)
            quantizer = FoldedWeightQuantizer(layer, bn, **self._weight_options(axis=None))
            quantizer.observe(weight_of(layer).detach())
            layer.weight_quantizer = quantizer.train(layer.training)
            if self.fold_bn == "batch":
                layer.register_forward_pre_hook(observe_batch_variance)


def _refuse_frozen(model: nn.Module) -> None:
    from micronet.quantization import fake_quantizers

    if any(quantizer.frozen for _, quantizer in fake_quantizers(model)):
        raise QuantizationError(
            "equalize, rounding and bias_correction change weights, and the grids of a frozen "
            "model can't follow. Calibrate before freeze."
        )


def _observer(choice: str | Mapping[str, Any]) -> Observer:
    """`minmax`, or `{name: percentile, percentile: 0.999}`."""
    named = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = named.pop("name", None)
    if not isinstance(name, str):
        raise OptionError(f"An observer needs a name, got {choice!r}.")
    observer: Observer = registry.create("observer", name, **named)
    return observer
