"""What layers with weights do to labels: convolutions and linear layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from micronet.pruning.follower import Follower, Side
from micronet.pruning.labels import along, numbers_places, varying
from micronet.pruning.products import matrix_product

Given = dict[str, Any]


def convolution(follower: Follower, out: Tensor, given: Given) -> None:
    x, weight = given["input"], given["weight"]
    view = follower.view_of(weight)
    if view is None or not follower.is_layer(view.tensor) or not view.whole:
        follower.lock(x, "it feeds a convolution whose weight no layer holds")
        return
    name = follower.name_of(view.tensor)
    inputs = follower.side(view.tensor, "inputs", x.shape[1])
    outputs = follower.side(view.tensor, "outputs", out.shape[1])
    labels = follower.labels_of(x)
    if labels is not None and _mixed(labels):
        follower.lock_labels(labels, f"its channels lie along an axis that {name!r} mixes")
        labels = None
    follower.read(labels, 1, inputs)
    if name in follower.found.depthwise:
        numbers = along(0, inputs.first, inputs.size, (inputs.size,))
        repeated = numbers.repeat_interleave(outputs.size // inputs.size)
        follower.couple(repeated, along(0, outputs.first, outputs.size, (outputs.size,)))
    elif view.computed and given["transposed"]:
        lock_mixed(follower, view.tensor)
    elif view.computed:
        follower.found.standardised.add(name)
    _read_bias(follower, given["bias"], outputs)
    # A transposed convolution computes all its outputs once for each place of its input.
    places = x.numel() / x.shape[1] if given["transposed"] else out.numel() / out.shape[1]
    _give_counted(follower, out, outputs, places)


def _mixed(labels: Tensor) -> bool:
    """Whether channels lie along height or width, not each in an input channel of its own."""
    if all(axis == 1 for axis in varying(labels)):
        return False
    return labels.shape[1] == 1 or not numbers_places(labels, 1)


def linear(follower: Follower, out: Tensor, given: Given) -> None:
    x = given.get("mat1", given.get("self"))
    view = follower.view_of(given["mat2"])
    assert isinstance(x, Tensor)
    if view is None or follower.view_of(x) is not None:
        matrix_product(follower, out, x, given["mat2"])
    elif (owner := follower.owner_of(view.tensor)) is not None:
        if type(owner).__module__.startswith("torch.nn"):
            why = f"it feeds a {type(owner).__name__}, which fixes its number of channels"
            follower.lock(x, why)
        else:
            matrix_product(follower, out, x, given["mat2"])
    elif view.axes != (1, 0) or view.computed:
        follower.lock(x, f"it feeds {follower.module_at_work()}, which computes its own weight")
    else:
        inputs = follower.side(view.tensor, "inputs", x.shape[1])
        outputs = follower.side(view.tensor, "outputs", out.shape[1])
        name, labels = inputs.names[0], follower.labels_of(x)
        if labels is not None and varying(labels) == [0]:
            for side in (inputs, outputs):
                follower.lock_side(side, "it works along another axis than its channels")
            follower.label(out, labels.narrow(1, 0, 1))
            return
        if labels is not None and 0 in varying(labels) and not numbers_places(labels, 1):
            follower.lock_labels(labels, f"its channels lie along an axis that {name!r} mixes")
            labels = None
        follower.read(labels, 1, inputs)
        _read_bias(follower, given["self"] if "mat1" in given else None, outputs)
        _give_counted(follower, out, outputs, out.numel() / out.shape[1])


def _read_bias(follower: Follower, bias: Tensor | None, outputs: Side) -> None:
    """A bias may be put together from parameters that the layer does not hold."""
    if bias is None:
        return
    labels = follower.labels_of(bias)
    if labels is None:
        follower.lock_side(outputs, "its bias is computed from something that has no channels")
    else:
        follower.read(labels, -1, outputs)


def _give_counted(follower: Follower, out: Tensor, outputs: Side, computed: float) -> None:
    name, positions = outputs.names[0], follower.found.positions
    positions[name] = positions.get(name, 0) + computed
    follower.give(out, 1, outputs)


def lock_empty(follower: Follower, tensors: list[Tensor]) -> None:
    """What meets in an operation that leaves nothing must stay: where it leads can't be seen."""
    for tensor in tensors:
        view = follower.view_of(tensor)
        if tensor.numel():
            follower.lock(tensor, _EMPTY)
        if view is not None and follower.is_layer(view.tensor):
            layer = follower.layer_of(view.tensor)
            for role, size in sizes_of(layer).items():
                follower.lock_side(follower.side(view.tensor, role, size), _EMPTY)


def lock_mixed(follower: Follower, weight: Tensor) -> None:
    """A layer stays whole that computes its weight from all numbers of it together."""
    name = follower.name_of(weight)
    for role, size in sizes_of(follower.layer_of(weight)).items():
        side = follower.side(weight, role, size)
        follower.lock_side(side, f"{name!r} computes its weight from all numbers of it together")


def sizes_of(layer: Any) -> dict[str, int]:
    """How many outputs and inputs a layer has; a normalization has outputs alone."""
    if isinstance(layer, _ConvNd):
        return {"outputs": layer.out_channels, "inputs": layer.in_channels}
    if isinstance(layer, nn.Linear):
        return {"outputs": layer.out_features, "inputs": layer.in_features}
    return {}


_EMPTY = "the example inputs leave nothing of it: a tensor of size 0"
