"""The same function before and after, by a forward pass of each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from micronet import structure
from micronet.errors import MicronetError, describe_error
from micronet.graph.copying import copy_of
from micronet.graph.leaf import Leaf, Probe, probes_off
from micronet.graph.modes import evaluating
from micronet.graph.outputs import tensors

_TOLERANCE = 1e-3
"""Of the largest output: far above what another order of additions makes of it."""
_TOLERANCE_IN_DOUBLE = 1e-6
_ROUNDINGS = 8
"""A chaotic model may move by so many times what rounding its weights to float32 moves it by."""
_NOISE = 0.1
"""Of an output's root mean square: what flipped roundings of a quantized model may add up to."""


class ChangedFunctionError(MicronetError):
    """A technique gave back a model that computes something else.

    Args:
        message: A sentence.
        difference: The largest one, over the largest output.
    """

    def __init__(self, message: str, difference: float) -> None:
        super().__init__(message)
        self.difference = difference


def check_same_function(
    before: nn.Module,
    after: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    what: str,
    quantizers: Literal["off", "weights"] = "off",
) -> None:
    """Refuses a model that computes something else than the one that it was made of.

    Both run on the example inputs in eval mode and with the same random numbers. Where float32 is
    not enough to tell, copies run in float64; where quantizers are on and may round the other way,
    what they add must be noise.

    Args:
        before: The model that was changed.
        after: The result.
        example_inputs: Positional arguments of the forward.
        what: What was done, as the subject of a sentence.
        quantizers: "off" for none of them, "weights" for those of weights alone.

    Raises:
        ChangedFunctionError: Their outputs differ; the message names the first layer that does.
        MicronetError: The model fails on the example inputs, or gives no tensor.
    """
    with _as_in(quantizers, before, after):
        expected = run(before, example_inputs)
        if not tensors(expected):
            raise MicronetError(
                f"{type(before).__name__} gives {structure.described(expected)} on the example "
                f"inputs, and no tensor in it that could be compared."
            )
        if _distance(expected, run(after, example_inputs)) <= _TOLERANCE:
            return
        try:
            with _precisely(before, after) as (before_, after_):
                difference, layer = _look_closer(before_, after_, _in_double(example_inputs))
        except MicronetError:  # it asks for float32 itself, and may compute in 16 bits
            difference, layer = _distance(expected, run(after, example_inputs)), None
            if difference < _sensitivity(before, example_inputs, expected, torch.bfloat16):
                return
    if difference == 0:
        return
    if quantizers == "weights" and _noise(before, after, example_inputs) <= _NOISE:
        return
    where = f"; the first layer whose outputs differ is {layer!r}" if layer else ""
    raise ChangedFunctionError(
        f"{what} changed what {type(before).__name__} computes: its outputs differ by "
        f"{difference:.2g} of the largest{where}. Please report this model; nothing was changed.",
        difference,
    )


def _look_closer(
    before: nn.Module, after: nn.Module, inputs: tuple[Any, ...]
) -> tuple[float, str | None]:
    """The difference in float64, and the first layer where it shows; 0 if it means nothing."""
    expected = run(before, inputs)
    difference = _distance(expected, run(after, inputs))
    if difference <= _TOLERANCE_IN_DOUBLE:
        return 0, None
    if _distance(expected, run(before, inputs)) > _TOLERANCE_IN_DOUBLE:
        return 0, None  # it never computes the same twice, so nothing can be said
    if difference < _ROUNDINGS * _sensitivity(before, inputs, expected, torch.float32):
        return 0, None
    return difference, _first_difference(before, after, inputs)


def run(model: nn.Module, example_inputs: tuple[Any, ...]) -> Any:
    """What a model gives in eval mode, always with the same random numbers.

    Raises:
        MicronetError: The model's code raises something.
    """
    inputs = tree_map_only(Tensor, torch.clone, example_inputs)  # it may work in place
    try:
        with torch.no_grad(), evaluating(model), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model(*inputs)
    except MicronetError:
        raise
    except Exception as error:
        raise MicronetError(
            f"{type(model).__name__} fails on the example inputs: {describe_error(error)}."
        ) from error


@contextmanager
def _as_in(quantizers: Literal["off", "weights"], *models: nn.Module) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models:
            weights = [
                (probe, probe.mode)
                for name, probe in model.named_modules()
                if isinstance(probe, Probe) and name.endswith("weight_quantizer")
            ]
            stack.enter_context(probes_off(model))
            for probe, mode in weights:
                if quantizers == "weights":
                    probe.mode = mode
        yield


def _sensitivity(
    model: nn.Module, inputs: tuple[Any, ...], expected: Any, rounded_to: torch.dtype
) -> float:
    """How far a model's outputs move where its weights move as a type would round them."""
    generator = torch.Generator().manual_seed(0)
    rounded = copy_of(model)
    with torch.no_grad():
        for tensor in (*rounded.parameters(), *rounded.buffers()):
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator).to(tensor)
                tensor.mul_(1 + torch.finfo(rounded_to).eps / 2 * noise)
    return _distance(expected, run(rounded, inputs))


@contextmanager
def _precisely(*models: nn.Module) -> Iterator[tuple[nn.Module, ...]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its author was told when the copy was made
        copies = tuple(copy_of(model).double() for model in models)
    yield copies


def _in_double(inputs: Any) -> Any:
    return tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)


def _distance(expected: Any, found: Any) -> float:
    """The largest difference over the largest number; inf where the outputs have other forms."""
    before, after = tensors(expected), tensors(found)
    if before.keys() != after.keys():
        return float("inf")
    return max((_difference(before[place], after[place]) for place in before), default=0.0)


def _difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    if a.numel() == 0:
        return 0.0
    a, b = a.detach().double(), b.detach().double()
    both = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    largest = a[a.isfinite()].abs().amax().clamp_min(1e-12) if a.isfinite().any() else 1.0
    return float((both / largest).nan_to_num(nan=torch.inf).amax())


def _noise(before: nn.Module, after: nn.Module, example_inputs: tuple[Any, ...]) -> float:
    """With quantizers as they are: the root mean square of the difference over the outputs'."""
    try:
        expected, found = (tensors(run(model, example_inputs)) for model in (before, after))
    except MicronetError:  # they have seen no data yet
        return float("inf")
    return max(
        (
            float((a.double() - b.double()).norm() / a.double().norm().clamp_min(1e-12))
            for a, b in zip(expected.values(), found.values(), strict=True)
            if a.shape == b.shape
        ),
        default=float("inf"),
    )


def _first_difference(
    before: nn.Module, after: nn.Module, example_inputs: tuple[Any, ...]
) -> str | None:
    """The first layer, in the order in which the second model runs, whose outputs differ."""
    expected, found = (_outputs_of_layers(model, example_inputs) for model in (before, after))
    for name, output in found.items():
        if name in expected and _distance(expected[name], output) > _TOLERANCE_IN_DOUBLE:
            return name
    return None


def _outputs_of_layers(model: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, Any]:
    outputs: dict[str, Any] = {}

    def note(name: str, output: Any) -> None:
        outputs.setdefault(name, tree_map_only(Tensor, torch.clone, output))

    hooks = [
        module.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
        for name, module in model.named_modules()
        if isinstance(module, Leaf) or not any(module.children())
    ]
    try:
        run(model, example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs
