"""The classic model files: a dict of plain types and tensors, which loads without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor, nn

from micronet import registry
from micronet.errors import DataError, MicronetError, OptionError
from micronet.models import MODEL_TYPES, name_of, nin, nin_gc, resnet
from micronet.storage.weights import fill, load_state, load_training_state, save_training_state

SAVED = Path("models_save")
"""Folder of the model files, below the current one."""

_NETS: dict[str, Any] = {"nin": nin.Net, "nin_gc": nin_gc.Net}


@attrs.frozen
class Checkpoint:
    """A model and where it came from.

    Args:
        path: Its file.
        state_dict: Its weights, and its quantizers' state.
        model: One of `MODEL_TYPES`.
        cfg: Output channels of the layers before the last; `None` where the model has no such.
        acc: Accuracy on the test set, 0 to 1; `None` if unknown.
        quantizer: Name and options of the quantizer that prepared it; `None` for a float model.
    """

    path: Path
    state_dict: Mapping[str, Tensor]
    model: str
    cfg: tuple[int, ...] | None = None
    acc: float | None = None
    quantizer: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, path: Path | str, model_type: int | None = None) -> Checkpoint:
        """Reads a file of a classic command, or any state_dict in a .pth.

        Args:
            path: The file.
            model_type: Which model it should be; `None` leaves it to the file, or else to nin_gc.

        Raises:
            DataError: It is not there, can't be read, or is of another model.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"There is no {path}.")
        content: Any = load_training_state(path)
        told = content if isinstance(content, dict) and "state_dict" in content else {}
        wanted = name_of(model_type)
        model = told.get("model", wanted)
        if model not in MODEL_TYPES:
            raise DataError(f"{path} holds a {model!r}, which no --model_type is.")
        if model_type is not None and model != wanted:
            raise DataError(
                f"{path} holds {model} (--model_type {MODEL_TYPES.index(model)}), not {wanted}."
            )
        cfg = told.get("cfg")
        return cls(
            path=path,
            state_dict=load_state(path),
            model=model,
            cfg=None if cfg is None else tuple(cfg),
            acc=told.get("acc"),
            quantizer=told.get("quantizer"),
        )

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        content = attrs.asdict(self, recurse=False, filter=lambda field, _: field.name != "path")
        content["state_dict"] = {
            name: tensor.detach().cpu().clone() for name, tensor in self.state_dict.items()
        }
        content["cfg"] = None if self.cfg is None else list(self.cfg)
        save_training_state(content, self.path)

    def skeleton(self) -> nn.Module:
        """The float network, with fresh weights. Raises DataError where `cfg` does not fit."""
        try:
            return build(self.model, self.cfg)
        except OptionError as error:
            raise DataError(f"{self.path}: {error}") from error

    def float_model(self) -> nn.Module:
        """The network with its weights. Raises DataError where it is quantized."""
        if self.quantizer is not None:
            raise DataError(f"{self.path} is quantized already; --resume goes on with it.")
        model = self.skeleton()
        fill(model, self.state_dict, self.path)
        return model

    def technique(self) -> Any:
        """The quantizer that prepared it. Raises DataError where none did."""
        if self.quantizer is None:
            raise DataError(f"{self.path} is a float model; train it quantized first (main.py).")
        try:
            options = dict(self.quantizer)
            return registry.create("quantizer", options.pop("name"), **options)
        except (KeyError, MicronetError) as error:
            raise DataError(f"{self.path} names no known quantizer: {error}") from error

    def quantized_model(self) -> nn.Module:
        """The prepared network with its weights. Raises DataError where it is float."""
        model: nn.Module = self.technique().prepare(self.skeleton(), ())
        fill(model, self.state_dict, self.path)
        return model

    def check_quantizer(self, asked: Any) -> None:
        """Refuses grids that differ from those in the file. How they are found is the file's.

        Args:
            asked: The quantizer that the command line describes.

        Raises:
            DataError: A grid would be another one.
        """
        own, wanted = _grids(self.technique()), _grids(asked)
        for name in own | wanted:
            if own.get(name) != wanted.get(name):
                raise DataError(
                    f"{self.path} was quantized with {name} {own.get(name)}, and the command line "
                    f"says {wanted.get(name)}."
                )


def build(model: str, cfg: tuple[int, ...] | None = None) -> nn.Module:
    """One of `MODEL_TYPES`, with fresh weights. Raises OptionError where `cfg` does not fit."""
    if model in _NETS:
        net: nn.Module = _NETS[model](cfg)
        return net
    return resnet.resnet18()


def cfg_of(model: nn.Module, name: str) -> tuple[int, ...] | None:
    """Output channels of the layers before the last, for the models that are built from them."""
    if name not in _NETS:
        return None
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return tuple(layer.out_channels for layer in layers[:-1])


def _grids(technique: Any) -> dict[str, Any]:
    options = {"quantizer": type(technique).__name__, **attrs.asdict(technique, recurse=False)}
    free = ("w_observer", "a_observer", "fold_bn")
    return {name: value for name, value in options.items() if name not in free}
