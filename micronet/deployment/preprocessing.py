"""Engines that prepare images themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from micronet.errors import DeployError
from micronet.techniques import EngineInput

_WHITE = {"uint8": 255, "float32": 1}


class Preprocessed(nn.Module):
    """A model behind what images go through before it.

    Args:
        model: Takes prepared images [batch, channels, height, width], and nothing else.
        given: What comes instead.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, given: EngineInput) -> None:
        super().__init__()
        mean, std = _by_channel(given)
        self.model, self._last = model, given.layout == "nhwc"
        self.register_buffer("factor", 1 / (_WHITE[given.dtype] * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)
        self.train(model.training)

    def forward(self, images: Tensor) -> Any:
        images = images.permute(0, 3, 1, 2) if self._last else images
        return self.model(images.float() * self.factor + self.shift)


def raw_images(images: Tensor, given: EngineInput) -> Tensor:
    """What an engine takes, of prepared images [batch, channels, height, width].

    Raises:
        DeployError: They were prepared with another mean and std.
    """
    mean, std = _by_channel(given.known(None, images.shape[1]))
    pixels = images.float() * std + mean
    if given.dtype == "uint8":
        scaled = (pixels * _WHITE["uint8"]).round()
        if not bool(((scaled >= 0) & (scaled <= _WHITE["uint8"])).all()):
            raise DeployError(
                f"With this mean and std the images would have pixels from "
                f"{float(scaled.min()):g} to {float(scaled.max()):g}, and not from 0 to 255."
            )
        pixels = scaled.to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous() if given.layout == "nhwc" else pixels


def prepared_images(raw: Tensor, given: EngineInput) -> Tensor:
    """What an engine makes of what it takes."""
    images: Tensor = Preprocessed(nn.Identity(), given)(raw)
    return images


def _by_channel(given: EngineInput) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (given.mean, given.std))
    return mean, std
