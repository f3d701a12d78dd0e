"""Channel pruning of networks with group convolutions."""

from __future__ import annotations

import attrs

from micronet.techniques import ChannelPruner


@attrs.frozen(kw_only=True)
class GCPruner(ChannelPruner):
    """As `normal`, beside group convolutions too.

    There the number of channels that a layer keeps is the multiple nearest to what is above the
    threshold of the least common multiple of the groups that give and take them, and each group
    keeps as many as any other: those with the largest |gamma| of the group. Where channels are
    shuffled between groups, each still goes where it went.
    """
