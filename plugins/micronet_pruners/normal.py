"""Channel pruning by batch-norm gammas (Liu et al. 2017, "Learning Efficient Convolutional
Networks through Network Slimming").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.techniques import ChannelPruner

if TYPE_CHECKING:
    from micronet.pruning.channels import Group


@attrs.frozen(kw_only=True)
class NormalPruner(ChannelPruner):
    """Removes the channels with the smallest |gamma| of the whole model.

    Where layers share channels, through a residual addition say, a channel counts with the mean of
    its gammas. Layers without a batch norm count with the norms of their filters, each divided by
    the mean in its layer. The layers that give the model's outputs stay whole, and so do layers
    beside group convolutions; each other layer keeps at least one channel.
    """

    def why_not(self, group: Group) -> str | None:
        if not group.convolutions:
            return None
        return (
            f"it is beside the group convolution {group.convolutions[0]}; the pruner gc minds those"
        )
