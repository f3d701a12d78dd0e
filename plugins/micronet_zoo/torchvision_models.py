"""Every classification model of torchvision, by torchvision's own name.

A class for each, made when the registry asks for it: `torchvision_models:resnet18` is the model
`torchvision/resnet18`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from micronet.errors import DataError, OptionError, listed, nearest
from micronet.options import option
from micronet.techniques import Model
from micronet_zoo import TORCHVISION_MODELS

if TYPE_CHECKING:
    from torch import nn

_WITH_AUXILIARY_LOGITS = ("googlenet", "inception_v3")


@attrs.frozen(kw_only=True)
class TorchvisionModel(Model):
    """A classification model of torchvision, for images of the size that it was made for.

    Auxiliary classifiers are left out. Where `num_classes` is not that of the weights, the layers
    whose shape depends on it start afresh.
    """

    architecture: ClassVar[str]

    num_classes: int = option(1000, ge=1, most=10**6, doc="Classes to tell apart.")
    weights: str | None = option(
        None,
        doc="Trained weights by torchvision's name, such as DEFAULT, fetched once; null for fresh.",
    )

    def build(self) -> nn.Module:
        fresh = self.structure()
        if self.weights is None:
            return fresh
        model = self._trained(self.weights)
        for name, module in fresh.named_modules():
            if _shapes(module) != _shapes(model.get_submodule(name)):
                model.set_submodule(name, module)
        return model

    def structure(self) -> nn.Module:
        from torchvision.models import get_model

        options: dict[str, Any] = {}
        if self.architecture in _WITH_AUXILIARY_LOGITS:
            options = {"aux_logits": False, "init_weights": True}
        if self.weights is not None:
            options |= self._options_of(self.weights)
        fresh: nn.Module = get_model(self.architecture, num_classes=self.num_classes, **options)
        return fresh

    def _options_of(self, weights: str) -> dict[str, Any]:
        """What torchvision makes of a model beside its weights: some want images of other sizes."""
        size = self._known(weights).meta["min_size"]
        if self.architecture in _WITH_AUXILIARY_LOGITS:
            return {"transform_input": True}
        if self.architecture.startswith("vit_"):
            return {"image_size": size[0]}
        return {"input_size": size} if self.architecture == "maxvit_t" else {}

    def _known(self, weights: str) -> Any:
        from torchvision.models import get_model_weights

        known = get_model_weights(self.architecture).__members__
        if weights not in known:
            raise OptionError(
                f"torchvision has no weights {weights!r} for {self.architecture}."
                f"{nearest(weights, known)} Allowed: {listed(known)}.",
                "weights",
            )
        return known[weights]

    def _trained(self, weights: str) -> nn.Module:
        from torchvision.models import get_model

        known = self._known(weights)
        try:
            model: Any = get_model(self.architecture, weights=known, progress=False)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"The weights {weights} of {self.architecture} could not be fetched ({error}). Put "
                f"{known.url} into torch's hub folder, or run once where there is a "
                f"network."
            ) from error
        if self.architecture in _WITH_AUXILIARY_LOGITS:
            model.aux_logits = False
            for name in ("aux1", "aux2", "AuxLogits"):
                if hasattr(model, name):
                    setattr(model, name, None)
        trained: nn.Module = model
        return trained


@functools.cache
def __getattr__(name: str) -> type[TorchvisionModel]:
    if name not in TORCHVISION_MODELS:
        raise AttributeError(name)
    return type(
        name, (TorchvisionModel,), {"__doc__": TorchvisionModel.__doc__, "architecture": name}
    )


def _shapes(module: nn.Module) -> list[Any]:
    """Of a module's own parameters."""
    return [parameter.shape for parameter in module.parameters(recurse=False)]
