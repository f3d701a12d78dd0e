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
    """Removes the channels whose |gamma| is below one threshold for the whole model.

    The threshold is the `percent` quantile of every |gamma|; where layers share channels, through
    a residual addition say, a channel counts with the mean of its gammas. The layers that give
    the model's outputs stay, and each other layer keeps at least one channel.
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
        ranked = torch.cat(scores).sort().values
        threshold = ranked[int(len(ranked) * self.percent)]
        keep: list[Tensor | None] = []
        for score in channels.gammas:
            if score is None:
                keep.append(None)
                continue
            kept = (score >= threshold).nonzero().flatten()
            keep.append(kept if len(kept) else score.argmax().reshape(1))
        return channels.remove_all_but(keep)
