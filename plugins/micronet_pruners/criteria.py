"""How much each set of coupled channels matters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from micronet_pruners.channels import Channels
from micronet_pruners.tracing import WEIGHTED, Ints


def scores(channels: Channels) -> NDArray[np.float64]:
    """A score for each set; the lowest go first.

    The mean |gamma| of the batch norms that a set lies in (Liu et al. 2017). Sets that no batch
    norm sees get the mean norm ||w|| of their filters, each divided by the mean norm in its layer,
    so that layers of any scale compare, and multiplied by the mean |gamma| of the model, so that
    they compare with sets that have gammas.
    """
    gammas, by_gamma = _means(
        channels,
        [
            (side.of(channels.set_of), np.abs(_array(side.layer.weight)))
            for side in channels.sides.values()
            if isinstance(side.layer, _BatchNorm) and side.layer.weight is not None
        ],
    )
    norms, by_norm = _means(
        channels,
        [
            (side.of(channels.set_of), _norms(side.layer))
            for side in channels.sides.values()
            if side.role == "outputs" and isinstance(side.layer, WEIGHTED)
        ],
    )
    scale = float(gammas[by_gamma].mean()) if by_gamma.any() else 1.0
    return np.where(by_gamma, gammas, np.where(by_norm, norms * scale, np.inf))


def _means(
    channels: Channels, parts: list[tuple[Ints, NDArray[np.float64]]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For each set, the mean of the values that it has, and whether it has any."""
    total, count = np.zeros(len(channels.kinds)), np.zeros(len(channels.kinds))
    for sets, values in parts:
        np.add.at(total, sets, values)
        np.add.at(count, sets, 1)
    return total / np.maximum(count, 1), count > 0


def _norms(layer: Any) -> NDArray[np.float64]:
    """The norm of each output channel's weights, relative to the mean in the layer."""
    weight = layer.weight.detach()
    if isinstance(layer, _ConvTransposeNd):
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    norms = _array(weight.flatten(1).double().norm(dim=1))
    return norms / max(float(norms.mean()), 1e-12)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array
