"""Batch norm before a sign, of which only a threshold matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from micronet.errors import QuantizationError
from micronet.techniques import Fuser

if TYPE_CHECKING:
    from torch import Tensor, fx, nn
    from torch.nn.modules.batchnorm import _BatchNorm


@attrs.frozen(kw_only=True)
class BinaryBatchNormFuser(Fuser):
    """Folds every batch norm that only signs read into a bias of the layer before it.

    With d = sqrt(variance + eps), sign(gamma (x - mean) / d + beta) is
    sign(x - mean + beta d / gamma) for gamma > 0. For gamma < 0 it is the sign of the opposite, so
    weights and bias change their signs; for gamma = 0 it is sign(beta) for any x. Magnitudes of
    weights stay, and so do the scales of quantized ones. Other batch norms are left to `bn`.
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
        only_signs = _read_by_signs(fused, example_inputs)
        for layer_name, bn_name in make_foldable(fused, example_inputs):
            if bn_name not in only_signs:
                continue
            bn = fused.get_submodule(bn_name)
            assert isinstance(bn, _BatchNorm)
            fold_batch_norm(fused.get_submodule(layer_name), _same_sign(bn))
            remove_batch_norm(fused, bn_name)
        return fused


def _read_by_signs(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> set[str]:
    """Names of the modules whose outputs go into signs and nowhere else."""
    from micronet.graph import graphs, trace_parts

    followed, _ = trace_parts(model, example_inputs)
    return {
        f"{name}.{node.target}".lstrip(".")
        for name, part in graphs(followed)
        for node in part.graph.nodes
        if node.op == "call_module" and node.users and all(map(_is_sign, node.users))
    }


def _is_sign(node: fx.Node) -> bool:
    from micronet.quantization import FakeQuantizer

    if node.op != "call_module" or node.graph.owning_module is None:
        return False
    module = node.graph.owning_module.get_submodule(str(node.target))
    return isinstance(module, FakeQuantizer) and module.bits == 1 and module.axis is None


def _same_sign(bn: _BatchNorm) -> _BatchNorm:
    """A batch norm with gamma -1, 0 or 1 and variance 1 whose outputs have this one's signs."""
    import torch
    from torch import nn

    mean, variance = bn.running_mean, bn.running_var
    assert mean is not None
    assert variance is not None
    gamma = bn.weight if bn.weight is not None else torch.ones_like(mean)
    beta = bn.bias if bn.bias is not None else torch.zeros_like(mean)
    same = nn.BatchNorm1d(bn.num_features, eps=0.0).to(mean)
    assert same.running_mean is not None
    with torch.no_grad():
        scaled = beta * torch.sqrt(variance + bn.eps) / gamma.abs()
        same.weight.copy_(gamma.sign())
        same.bias.copy_(torch.where(gamma == 0, beta, scaled))
        same.running_mean.copy_(mean)
    return same
