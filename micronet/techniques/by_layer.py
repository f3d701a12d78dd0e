"""A quantizer that leaves single layers in float, or gives them options of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from micronet.errors import OptionError
from micronet.options import build
from micronet.techniques.quantizer import Quantizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micronet.techniques.scheme import Scheme

_FLOAT = "float"


@attrs.frozen
class ByLayer(Quantizer):
    """A quantizer with choices for single layers.

    An activation that several layers read follows their choice where they agree on one; else it is
    quantized as all others are.

    Args:
        base: For all other layers, and for what lies between layers.
        choices: For names or patterns of layers, `float`, or options in which the layer's quantizer
            differs; the first pattern that fits counts.

    Raises:
        OptionError: A choice is neither.
    """

    base: Quantizer
    choices: Mapping[str, Any]
    variants: Mapping[str, Quantizer | None] = attrs.field(init=False)

    @variants.default
    def _variants(self) -> dict[str, Quantizer | None]:
        return {pattern: self._variant(pattern, each) for pattern, each in self.choices.items()}

    def _variant(self, pattern: str, choice: Any) -> Quantizer | None:
        if choice == _FLOAT:
            return None
        if not isinstance(choice, Mapping) or not choice:
            raise OptionError(
                f"layers.{pattern} must be float, or a mapping of the quantizer's options, got "
                f"{choice!r}.",
                "layers",
            )
        base: Any = self.base
        options = {**attrs.asdict(base, recurse=False), **choice}
        try:
            variant = build(type(self.base), options, owner=f"layers.{pattern}")
        except OptionError as error:
            raise OptionError(str(error), "layers") from error
        if not variant.separable:
            raise OptionError(
                f"layers.{pattern}: with these options what a layer gets depends on others; a "
                f"layer can only be float.",
                "layers",
            )
        return variant

    @property
    def needs_data(self) -> bool:  # type: ignore[override]
        return any(each.needs_data for each in self._all())

    @property
    def scheme(self) -> Scheme | None:
        return self.base.scheme

    @property
    def schemes(self) -> list[Scheme]:
        """Of all layers that are quantized."""
        return [each.scheme for each in self._all() if each.scheme is not None]

    def _all(self) -> list[Quantizer]:
        return [self.base, *(each for each in self.variants.values() if each is not None)]

    def prepare(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        """As the contract has it.

        Raises:
            QuantizationError: Also where a pattern fits no quantized layer, or none is left.
        """
        from micronet.quantization.by_layer import choose_by_layer

        prepared = self.base.prepare(model, example_inputs)
        others: dict[str, nn.Module | None] = {}
        for pattern, variant in self.variants.items():
            alike = next((each for each in others if self.variants[each] == variant), None)
            if alike is not None:
                others[pattern] = others[alike]
            elif variant is None:
                others[pattern] = None
            else:
                others[pattern] = variant.prepare(model, example_inputs)
        choose_by_layer(prepared, others)
        return prepared

    def calibrate(self, model: nn.Module, batches: Iterable[Any]) -> None:
        self.base.calibrate(model, batches)

    def freeze(self, model: nn.Module) -> None:
        self.base.freeze(model)

    def convert(self, model: nn.Module) -> nn.Module:
        return self.base.convert(model)
