"""ReLUs that become binary activations."""

from __future__ import annotations

import contextlib

from torch import Tensor, nn

from micronet.graph import TracingError, execution_order, trace
from micronet.quantization import weighted_layers
from micronet_wbwtab.fake_quantizers import BinaryActivation

_RELUS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardswish, nn.SiLU)


def replace_relus(model: nn.Module, example_inputs: tuple[Tensor, ...], *, last: bool) -> nn.Module:
    """The model with signs for the ReLUs that run between its first and its last weighted layer.

    Functional relu counts where torch.fx can trace the model.

    Args:
        model: A float model, changed in place or returned as a traced one.
        example_inputs: What its forward takes.
        last: Also those after the last weighted layer.
    """
    with contextlib.suppress(TracingError):  # modules can be replaced all the same
        model = trace(model)
    order = execution_order(model, example_inputs)
    weighted = weighted_layers(model, example_inputs)
    start = order.index(weighted[0]) + 1
    end = len(order) if last else order.index(weighted[-1])
    for name in order[start:end]:
        if isinstance(model.get_submodule(name), _RELUS):
            model.set_submodule(name, BinaryActivation())
    return model
