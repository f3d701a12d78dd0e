"""Torch's weighted layers with a fake-quantized weight and, where asked, input."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from micronet.graph.leaf import Leaf
from micronet.quantization.fake_quantizer import FakeQuantizer


class QuantizedLayer(Leaf):
    """Mixin of the layers below.

    `weight_quantizer` maps the weight to what the layer computes with. `input_quantizer` does the
    same for its input; it is `None` where the model's graph quantizes activations itself.
    """

    weight_quantizer: nn.Module
    input_quantizer: FakeQuantizer | None

    def quantized_weight(self) -> Tensor:
        weight: Tensor = self.weight_quantizer(self.weight)
        return weight

    def quantized_input(self, x: Tensor) -> Tensor:
        if self.input_quantizer is None:
            return x
        quantized: Tensor = self.input_quantizer(x)
        return quantized


class QuantizedConv1d(QuantizedLayer, nn.Conv1d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        weight = self.quantized_weight()
        out: Tensor = self._conv_forward(self.quantized_input(input), weight, self.bias)
        return out


class QuantizedConv2d(QuantizedLayer, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        weight = self.quantized_weight()
        out: Tensor = self._conv_forward(self.quantized_input(input), weight, self.bias)
        return out


class QuantizedConv3d(QuantizedLayer, nn.Conv3d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        weight = self.quantized_weight()
        out: Tensor = self._conv_forward(self.quantized_input(input), weight, self.bias)
        return out


class QuantizedConvTranspose2d(QuantizedLayer, nn.ConvTranspose2d):
    def forward(
        self,
        input: Tensor,  # noqa: A002 (torch's name)
        output_size: list[int] | None = None,
    ) -> Tensor:
        padding = self._output_padding(
            input,
            output_size,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.kernel_size,  # type: ignore[arg-type]
            2,
            self.dilation,  # type: ignore[arg-type]
        )
        return F.conv_transpose2d(
            self.quantized_input(input),
            self.quantized_weight(),
            self.bias,
            self.stride,
            self.padding,  # type: ignore[arg-type]
            padding,
            self.groups,
            self.dilation,
        )


class QuantizedLinear(QuantizedLayer, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        return F.linear(self.quantized_input(input), self.quantized_weight(), self.bias)


QUANTIZED: dict[type[nn.Module], type[QuantizedLayer]] = {
    nn.Conv1d: QuantizedConv1d,
    nn.Conv2d: QuantizedConv2d,
    nn.Conv3d: QuantizedConv3d,
    nn.ConvTranspose2d: QuantizedConvTranspose2d,
    nn.Linear: QuantizedLinear,
}
"""Torch's layers and their quantized twins."""


def quantize_layer(
    layer: nn.Module,
    weight: FakeQuantizer | None,
    input: FakeQuantizer | None = None,  # noqa: A002 (what the layer calls it)
) -> None:
    """Turns a torch layer into its quantized twin, in place; parameters, hooks and mode stay.

    Args:
        layer: Of a type that `QUANTIZED` names, exactly.
        weight: Quantizes its weight; `None` leaves it in float.
        input: Quantizes its input; `None` leaves it in float.
    """
    layer.__class__ = QUANTIZED[type(layer)]
    assert isinstance(layer, QuantizedLayer)
    layer.weight_quantizer = (weight or nn.Identity()).train(layer.training)
    layer.input_quantizer = input and input.train(layer.training)


def output_axis(layer: nn.Module) -> int:
    """Dimension of a layer's weight that runs over its output channels."""
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, QuantizedLayer]]:
    """Every quantized layer with its name."""
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLayer):
            yield name, module


def layers_left_in_float(model: nn.Module) -> list[str]:
    """Names of the modules that hold a weight matrix, kernel or table of their own in float.

    A vector, such as one scale for each channel, is none, whichever way it is shaped. The model
    itself has no name: what it holds is named by its parameters.
    """
    names: list[str] = []
    for name, module in model.named_modules():
        tables = [] if isinstance(module, QuantizedLayer) else _tables(module)
        names += [name] if name and tables else tables
    return names


def described_in_float(model: nn.Module, name: str) -> str:
    """What `layers_left_in_float` names, for a sentence: with its type, which says why it is left.

    A layer of a type in `QUANTIZED` is left because the example inputs do not call it: its weight
    is read elsewhere, or the model takes another way.
    """
    if isinstance(getattr(model, name, None), nn.Parameter):
        return f"the model's own {name!r}"
    kind = type(model.get_submodule(name))
    return f"{name!r} ({'not called' if kind in QUANTIZED else kind.__name__})"


def _tables(module: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.numel() > max(parameter.shape, default=1)
    ]
