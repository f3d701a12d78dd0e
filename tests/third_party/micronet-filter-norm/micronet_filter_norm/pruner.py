"""Pruning by filter norms (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.techniques import ChannelPruner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from micronet.pruning.channels import Channels


@attrs.frozen(kw_only=True)
class FilterNorm(ChannelPruner):
    """Removes the channels whose filters have the smallest L1 norms, relative to their layer."""

    def scores(self, channels: Channels) -> NDArray[np.float64]:
        from micronet.pruning.criteria import by_filters

        return by_filters(channels, _relative_l1)


def _relative_l1(filters: Tensor) -> Tensor:
    norms = filters.abs().sum(1)
    return norms / norms.mean().clamp_min(1e-12)
