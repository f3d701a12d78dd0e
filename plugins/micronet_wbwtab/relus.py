"""ReLUs that become binary activations."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from micronet.graph import execution_order, follow
from micronet.graph.example_inputs import check_example_inputs
from micronet.quantization import weighted_layers
from micronet_wbwtab.fake_quantizers import BinaryActivation

_RELUS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardswish, nn.SiLU)


def replace_relus(model: nn.Module, example_inputs: tuple[Tensor, ...], *, last: bool) -> nn.Module:
    """The model with signs for the ReLUs that run between its first and its last weighted layer.

    Functional relu counts where the model can be followed and its inputs are known.

    Args:
        model: A float model, changed in place.
        example_inputs: What its forward takes; empty if unknown.
        last: Also those after the last weighted layer.
    """
    check_example_inputs(example_inputs)
    if example_inputs:
        follow(model, example_inputs)
    order = execution_order(model, example_inputs)
    weighted = weighted_layers(model, example_inputs)
    if not weighted:
        return model
    start = order.index(weighted[0]) + 1
    end = len(order) if last else order.index(weighted[-1])
    relus = [name for name in order[start:end] if isinstance(model.get_submodule(name), _RELUS)]
    for name in relus:
        mode = model.get_submodule(name).training
        model.set_submodule(name, BinaryActivation().train(mode))
    if not (relus or example_inputs):
        warnings.warn(
            f"{type(model).__name__} has no ReLU module between its first and its last layer, so "
            f"activations stay in float. With example inputs functional ones count too.",
            stacklevel=3,
        )
    return model
