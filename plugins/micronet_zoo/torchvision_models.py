"""Models of torchvision, by torchvision's own names.

A class for each, made when the registry asks for it: `torchvision_models:resnet18` is the model
`torchvision/resnet18`.
"""

from __future__ import annotations

import functools
import typing
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from micronet.errors import DataError, OptionError, listed, nearest
from micronet.options import option
from micronet.techniques import Model
from micronet_zoo import TORCHVISION_DETECTORS, TORCHVISION_MODELS, TORCHVISION_SEGMENTERS

if TYPE_CHECKING:
    from torch import nn

_WITH_AUXILIARY_LOGITS = ("googlenet", "inception_v3")
_OF_ONE_SIZE = ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large")
_WITHOUT_EPS = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Detectors whose weights torchvision trained with batch norms that add nothing to variances."""
_COUNTS = ("num_classes", "num_columns")
"""What a detector's modules call the number of classes that they keep."""


@attrs.frozen(kw_only=True)
class TorchvisionModel(Model):
    architecture: ClassVar[str]

    weights: str | None = option(
        None,
        doc="Trained weights by torchvision's name, such as DEFAULT, fetched once; null for fresh.",
    )

    def build(self) -> nn.Module:
        fresh = self.structure()
        if self.weights is None:
            return fresh
        weights = self._known(self.weights)
        model: nn.Module = _fetched(self.architecture, weights, weights=weights)
        self._leave_out_auxiliaries(model)
        for name, module in fresh.named_modules():
            trained = model.get_submodule(name)
            if _shapes(module) != _shapes(trained):
                model.set_submodule(name, module)
            for count in _COUNTS:
                if hasattr(module, count):
                    setattr(trained, count, getattr(module, count))
        return model.requires_grad_()

    @abstractmethod
    def structure(self) -> nn.Module:
        """The model as `build` gives it, with no weights fetched."""

    def _leave_out_auxiliaries(self, model: Any) -> None:
        """Removes what only training uses from a model that came with weights."""

    def _known(self, weights: str) -> Any:
        from torchvision.models import get_model_weights

        known = get_model_weights(self.architecture).__members__
        return _member(weights, known, "weights", self.architecture)


@attrs.frozen(kw_only=True)
class TorchvisionClassifier(TorchvisionModel):
    """A classification model of torchvision, for images of the size that it was made for.

    Auxiliary classifiers are left out. Where `num_classes` is not that of the weights, the layers
    whose shape depends on it start afresh.
    """

    num_classes: int = option(1000, ge=1, most=10**6, doc="Classes to tell apart.")

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

    def _leave_out_auxiliaries(self, model: Any) -> None:
        if self.architecture in _WITH_AUXILIARY_LOGITS:
            model.aux_logits = False
            for name in ("aux1", "aux2", "AuxLogits"):
                if hasattr(model, name):
                    setattr(model, name, None)


@attrs.frozen(kw_only=True)
class _WithBackbone(TorchvisionModel):
    """A model whose backbone may come with weights of its own."""

    weights_backbone: str | None = option(
        None, doc="Trained weights of the backbone alone, by torchvision's name; null for fresh."
    )

    def build(self) -> nn.Module:
        if self.weights is not None or self.weights_backbone is None:
            return super().build()
        weights = self._known_backbone(self.weights_backbone)
        model: nn.Module = _fetched(
            self.architecture, weights, **self._options(), weights=None, weights_backbone=weights
        )
        return model.requires_grad_()

    def structure(self) -> nn.Module:
        from torchvision.models import get_model

        if self.weights is not None:
            self._known(self.weights)
        elif self.weights_backbone is not None:
            self._known_backbone(self.weights_backbone)
        options = {"weights": None, "weights_backbone": None, **self._options()}
        fresh: nn.Module = get_model(self.architecture, **options)
        return fresh

    def _known_backbone(self, weights: str) -> Any:
        from torchvision.models import get_model_builder

        hint = typing.get_type_hints(get_model_builder(self.architecture))["weights_backbone"]
        known = typing.get_args(hint)[0].__members__
        return _member(weights, known, "weights_backbone", self.architecture)

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What torchvision's function takes beside weights."""


@attrs.frozen(kw_only=True)
class TorchvisionSegmenter(_WithBackbone):
    """A segmentation model of torchvision: `{"out": logits [batch, num_classes, height, width]}`.

    Auxiliary classifiers are left out. Where `num_classes` is not that of the weights, the layers
    whose shape depends on it start afresh.
    """

    num_classes: int = option(21, ge=1, most=10**6, doc="Classes to tell apart.")

    def _options(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}

    def _leave_out_auxiliaries(self, model: Any) -> None:
        if hasattr(model, "aux_classifier"):
            model.aux_classifier = None


@attrs.frozen(kw_only=True)
class TorchvisionSSD(_WithBackbone):
    """A detector of torchvision that scales images to one size, which its name tells.

    It takes a list of images in 0..1, and in train mode their targets, and gives losses in train
    mode and boxes in eval mode. Label 0 is the background. Where `num_classes` is not that of the
    weights, the layers whose shape depends on it start afresh.
    """

    num_classes: int = option(
        91, ge=2, most=10**6, doc="Labels to tell apart; the background counts."
    )

    def _options(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}


@attrs.frozen(kw_only=True)
class TorchvisionDetector(TorchvisionSSD):
    """A detector of torchvision, for images of any size.

    It takes a list of images in 0..1, and in train mode their targets, and gives losses in train
    mode and boxes in eval mode. Label 0 is the background. Where `num_classes` is not that of the
    weights, the layers whose shape depends on it start afresh.
    """

    min_size: int | None = option(
        None,
        ge=1,
        most=10**5,
        doc="Pixels that images are scaled to on the short side; null for torchvision's number.",
    )
    max_size: int | None = option(
        None, ge=1, most=10**5, doc="Pixels that the long side may have then; null as above."
    )

    def build(self) -> nn.Module:
        return self._scaling(super().build())

    def structure(self) -> nn.Module:
        """The same, its norms frozen where torchvision freezes those that come with weights."""
        model = super().structure()
        if (self.weights or self.weights_backbone) and not self.architecture.endswith("_v2"):
            eps = 0.0 if self.weights and self.architecture in _WITHOUT_EPS else 1e-5
            _freeze_norms(model.get_submodule("backbone.body"), eps)
        return self._scaling(model)

    def _scaling(self, model: Any) -> nn.Module:
        if self.min_size is not None:
            model.transform.min_size = (self.min_size,)
        if self.max_size is not None:
            model.transform.max_size = self.max_size
        return typing.cast("nn.Module", model)


@functools.cache
def __getattr__(name: str) -> type[TorchvisionModel]:
    base: type[TorchvisionModel]
    if name in TORCHVISION_MODELS:
        base = TorchvisionClassifier
    elif name in TORCHVISION_SEGMENTERS:
        base = TorchvisionSegmenter
    elif name in TORCHVISION_DETECTORS:
        base = TorchvisionSSD if name in _OF_ONE_SIZE else TorchvisionDetector
    else:
        raise AttributeError(name)
    return type(name, (base,), {"__doc__": base.__doc__, "architecture": name})


def _member(name: str, known: Mapping[str, Any], option_name: str, architecture: str) -> Any:
    if name not in known:
        raise OptionError(
            f"torchvision has no {option_name} {name!r} for {architecture}."
            f"{nearest(name, known)} Allowed: {listed(known)}.",
            option_name,
        )
    return known[name]


def _fetched(architecture: str, fetched: Any, **options: Any) -> Any:
    """A model with weights, those that may have to be fetched told apart for the message."""
    from torchvision.models import get_model

    try:
        return get_model(architecture, progress=False, **options)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"The weights {fetched.name} of {architecture} could not be fetched ({error}). Put "
            f"{fetched.url} into torch's hub folder, or run once where there is a network."
        ) from error


def _freeze_norms(backbone: nn.Module, eps: float) -> None:
    from torch import nn
    from torchvision.ops import FrozenBatchNorm2d

    for name, module in list(backbone.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            backbone.set_submodule(name, FrozenBatchNorm2d(module.num_features, eps=eps))


def _shapes(module: nn.Module) -> list[Any]:
    """Of a module's own parameters."""
    return [parameter.shape for parameter in module.parameters(recurse=False)]
