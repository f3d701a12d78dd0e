"""Batch norm folded into the layer that feeds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.errors import QuantizationError
from micronet.techniques import Fuser

if TYPE_CHECKING:
    from torch import Tensor, nn


@attrs.frozen(kw_only=True)
class BatchNormFuser(Fuser):
    """Folds every batch norm whose only input is a convolution or linear layer read by no other.

    Pairs are found by data flow, not by the order in which the model declares its layers. What
    the model computes in eval mode stays; integer codes of quantized weights stay too.
    """

    def fuse(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> nn.Module:
        from torch.nn.modules.batchnorm import _BatchNorm

        from micronet.graph import make_foldable
        from micronet.graph.copying import copy_of
        from micronet.quantization import StoredWeight
        from micronet.quantization.folding import fold_batch_norm, remove_batch_norm

        fused = copy_of(model)
        if any(isinstance(module, StoredWeight) for module in fused.modules()):
            raise QuantizationError(
                "Fuse a model before it is converted: its weights are integers."
            )
        for layer_name, bn_name in make_foldable(fused, example_inputs):
            bn = fused.get_submodule(bn_name)
            assert isinstance(bn, _BatchNorm)
            fold_batch_norm(fused.get_submodule(layer_name), bn)
            remove_batch_norm(fused, bn_name)
        return fused
