"""Channel pruning that leaves numbers of channels which hardware likes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from micronet.options import option
from micronet.techniques import ChannelPruner
from micronet.techniques.channel_pruner import to_multiple

if TYPE_CHECKING:
    from micronet.pruning.channels import Group


@attrs.frozen(kw_only=True)
class RegularPruner(ChannelPruner):
    """As `normal`, and the number of channels that each layer keeps is a multiple of `multiple`.

    It is the multiple nearest to what is above the threshold, at least `multiple`; a layer with
    fewer channels than that stays whole. Beside group convolutions it is a multiple of their
    groups as well.
    """

    multiple: int = option(8, ge=1, doc="What the kept number of each layer is a multiple of.")

    def rounded(self, group: Group, above: int) -> int:
        return to_multiple(above, len(group.sets), math.lcm(self.multiple, group.unit))

    def why_not(self, group: Group) -> str | None:
        multiple, size = math.lcm(self.multiple, group.unit), len(group.sets)
        if size >= multiple:
            return None
        return f"its {size} channel{'s' if size > 1 else ''} are fewer than the multiple {multiple}"
