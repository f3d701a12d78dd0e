"""Channel pruning by batch-norm gammas (Liu et al. 2017, "Learning Efficient Convolutional
Networks through Network Slimming").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.errors import PruningError
from micronet.options import option
from micronet.techniques import Pruner, PruningResult

if TYPE_CHECKING:
    from torch import Tensor, nn


@attrs.frozen(kw_only=True)
class NormalPruner(Pruner):
    """Removes the channels with the smallest |gamma| of the whole model.

    So many are removed as `percent` says, of equal gammas the first; where layers share
    channels, through a residual addition say, a channel counts with the mean of its gammas. The
    layers that give the model's outputs stay, and each other layer keeps at least one channel.
    """

    percent: float = option(0.5, gt=0, le=0.95, doc="Fraction of all channels to remove.")

    def prune(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> PruningResult:
        import torch

        from micronet_pruners.channels import ChannelGraph

        channels = ChannelGraph.build(model, example_inputs)
        scores = [score for score in channels.gammas if score is not None]
        if not scores:
            raise PruningError(
                "No layer can be pruned by batch-norm gammas: "
                + "; ".join(f"{name}: {why}" for name, why in channels.reasons.items())
                + "."
            )
        order = torch.cat(scores).argsort(stable=True)
        survives = torch.ones(len(order), dtype=torch.bool)
        survives[order[: round(len(order) * self.percent)]] = False
        shares = iter(torch.split(survives, [len(score) for score in scores]))
        keep: list[Tensor | None] = []
        for score in channels.gammas:
            kept = None if score is None else next(shares).nonzero().flatten()
            if score is not None and kept is not None and not len(kept):
                kept = score.argmax().reshape(1)
            keep.append(kept)
        return channels.remove_all_but(keep)
