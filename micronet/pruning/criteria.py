"""How much each set of coupled channels matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from micronet.pruning.channels import Channels
from micronet.pruning.follower import WEIGHTED, Ints


def by_gammas(channels: Channels) -> NDArray[np.float64]:
    """The mean |gamma| of the batch norms that a set lies in (Liu et al. 2017).

    Sets that no batch norm sees get the mean norm ||w|| of their filters, each divided by the mean
    norm in its layer, so that layers of any scale compare, and multiplied by the mean |gamma| of
    the model, so that they compare with sets that have gammas.
    """
    gammas, by_gamma = _means(
        channels,
        [
            (side.of(channels.set_of), np.abs(_array(side.layer.weight)))
            for side in channels.sides.values()
            if isinstance(side.layer, _BatchNorm) and side.layer.weight is not None
        ],
    )
    norms = by_filters(channels, _relative_norms)
    scale = float(gammas[by_gamma].mean()) if by_gamma.any() else 1.0
    return np.where(by_gamma, gammas, norms * scale)


def by_filters(channels: Channels, score: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
    """For each set the mean of what a criterion says of its filters; inf where it has none.

    Args:
        channels: Of the model.
        score: From a layer's filters, float64 [output channels, numbers], to [output channels].
    """
    parts = [
        (side.of(channels.set_of), _array(score(_filters(side.layer))))
        for side in channels.sides.values()
        if side.role == "outputs" and isinstance(side.layer, WEIGHTED)
    ]
    means, found = _means(channels, parts)
    return np.where(found, means, np.inf)


def _means(
    channels: Channels, parts: list[tuple[Ints, NDArray[np.float64]]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For each set, the mean of the values that it has, and whether it has any."""
    total, count = np.zeros(len(channels.kinds)), np.zeros(len(channels.kinds))
    for sets, values in parts:
        np.add.at(total, sets, values)
        np.add.at(count, sets, 1)
    return total / np.maximum(count, 1), count > 0


def _filters(layer: Any) -> Tensor:
    """The weights of each output channel, in a row."""
    weight: Tensor = layer.weight.detach()
    if isinstance(layer, _ConvTransposeNd):
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
        weight = grouped.transpose(1, 2).flatten(0, 1)
    return weight.flatten(1).double()


def _relative_norms(filters: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(filters, dim=1)
    return norms / norms.mean().clamp_min(1e-12)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array
