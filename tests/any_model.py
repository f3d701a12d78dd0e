"""One way through quantization for any model: train a step, calibrate, convert, deploy, compare."""

from __future__ import annotations

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from micronet import registry
from micronet.graph import TracingError
from micronet.quantization import (
    AffineFakeQuantizer,
    in_mode,
    layers_left_in_float,
    quantized_layers,
)
from micronet.techniques import Quantizer

SIZES = {"inception_v3": 299, "maxvit_t": 224, "vit_h_14": 56}
"""Height and width of the images for torchvision's models that do not take small ones."""
_SMALL = 64
_SETTLING_BATCHES = 3


@attrs.frozen
class Outcome:
    """What came of a model. Where it has several outputs, the worst one counts.

    Args:
        traced: Whether activations were quantized in a graph, not at each layer's input.
        quantized: Number of layers with quantized weights.
        in_float: Names of what keeps its weights in float.
        warned: What `prepare` said about them, and about a model that it could not trace.
        folded_float_db: Signal to noise of the float model with folded batch norms against the same
            without; 100 unless folding is wrong or there is nothing to fold.
        simulation_db: Signal to quantization noise of the prepared model against the float one.
        fused_db: Likewise, once batch norms are folded and weights are integers.
        agreement: Fraction of images to which engine and simulation give the same class.
        sqnr_db: Signal to quantization noise of the engine's outputs against the simulation's.
        own_agreement: Of the simulation with itself, once its scales are changed in their last
            bits and its biases are rounded as ONNX Runtime rounds them. Rounding amplifies such
            changes, random weights more than trained ones, so an engine can't come much closer.
        own_sqnr_db: Likewise.
        missing: Outputs of the model that the engine does not give.
        seconds: Of CPU time, from `prepare` to the engine's outputs.
    """

    traced: bool
    quantized: int
    in_float: list[str]
    warned: list[str]
    folded_float_db: float
    simulation_db: float
    fused_db: float
    agreement: float
    sqnr_db: float
    own_agreement: float
    own_sqnr_db: float
    missing: list[str]
    seconds: float


def torchvision_model(name: str) -> tuple[nn.Module, int]:
    """A torchvision model with random weights, and the height and width of its images."""
    import torchvision

    torch.manual_seed(0)
    size = SIZES.get(name, _SMALL)
    options: dict[str, Any] = {}
    if name.startswith("vit"):
        options["image_size"] = size
    elif name in ("googlenet", "inception_v3"):
        options["init_weights"] = True
    return torchvision.models.get_model(name, weights=None, **options), size


@torch.no_grad()
def settle(model: nn.Module, size: int) -> nn.Module:
    """The model in place, as if trained: random parameters, and batch norms that know their input.

    Parameters that start all alike, such as gains of 1 and layer scales of 1e-6, get random values,
    since they would hide what a layer or a whole branch does.
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if (parameter == parameter.flatten()[0]).all():
            shift = name.endswith("bias") or (parameter.ndim > 1 and not parameter.any())
            nn.init.uniform_(parameter, *((-0.1, 0.1) if shift else (0.5, 1.5)), generator)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    model.train()
    for _ in range(_SETTLING_BATCHES):
        model(torch.randn(8, 3, size, size, generator=generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def examine(
    model: nn.Module,
    size: int,
    quantizer: Quantizer,
    directory: Path,
    *,
    train: bool = True,
    images: int = 2,
) -> Outcome:
    """Takes a float model to an engine in `directory`, and compares what it gives on the way.

    Args:
        model: For images [batch, 3, size, size].
        size: Height and width, in pixels.
        quantizer: The technique.
        directory: Where the engine's file goes.
        train: Whether to train for one step. Batch norms then get random shifts, as trained ones
            have them; unshifted, whole channels of a binary network would lie just where the sign
            changes.
        images: In each of the four batches.

    Raises:
        AssertionError: A trained parameter got no gradient, or one that is not finite.
    """
    start = time.process_time()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(images, 3, size, size, generator=generator) for _ in range(4)]
    folded_float_db = _folded_float_db(model, batches[0])
    if train:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                nn.init.uniform_(module.bias, -0.1, 0.1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        prepared = quantizer.prepare(model, (batches[0],))
    if train:
        train_step(prepared, batches[0])
    if quantizer.needs_data:
        quantizer.calibrate(prepared, batches[:2])
    with in_mode("off", prepared):
        plain = outputs((prepared if train else model).eval(), batches)
    simulated = outputs(prepared.eval(), batches)
    fused = _fused(prepared, batches[0])
    converted = quantizer.convert(fused)
    layers = dict(quantized_layers(converted))
    backend = registry.create("deploy_backend", "onnxruntime")
    artifact = backend.export(converted, (batches[0],), directory)
    runner = backend.load(artifact, threads=1)
    expected = outputs(converted, batches)
    _change_last_bits(converted, generator)
    changed = outputs(converted, batches)
    deployed = outputs(runner, [batch.numpy() for batch in batches])
    if deployed.keys() != expected.keys():
        deployed = dict(zip(expected, deployed.values(), strict=False))
    assert all(each.isfinite().all() for each in deployed.values()), "the engine gives NaN or Inf"
    first = next(iter(expected))
    return Outcome(
        traced=isinstance(prepared, torch.fx.GraphModule),
        quantized=len(layers),
        in_float=layers_left_in_float(converted),
        warned=[str(warning.message) for warning in warned],
        folded_float_db=folded_float_db,
        simulation_db=_worst_db(simulated, plain),
        fused_db=_worst_db(expected, plain),
        agreement=agreement(deployed[first], expected[first]),
        sqnr_db=_worst_db(deployed, expected),
        own_agreement=agreement(changed[first], expected[first]),
        own_sqnr_db=_worst_db(changed, expected),
        missing=[name for name in expected if name not in deployed],
        seconds=time.process_time() - start,
    )


def _fused(model: nn.Module, images: Tensor) -> nn.Module:
    with contextlib.suppress(TracingError):
        return registry.create("fuser", "bn").fuse(model, (images,))
    return model  # its batch norms stay where they are


def _folded_float_db(model: nn.Module, images: Tensor) -> float:
    """In float64, where rounding is far too small for a model to amplify it into an error."""
    model, images = copy.deepcopy(model).double().eval(), images.double()
    return _worst_db(outputs(_fused(model, images), [images]), outputs(model, [images]))


@torch.no_grad()
def _change_last_bits(model: nn.Module, generator: torch.Generator) -> None:
    """Of a converted model's scales; biases are rounded to the steps of what they are added to.

    The step of a bias is the product of the scales of a layer's input and weight. It is known where
    a quantizer stands right before the layer.
    """
    before = _modules_before(model)
    for name, layer in quantized_layers(model):
        quantizer = layer.input_quantizer or before.get(name)
        if isinstance(quantizer, AffineFakeQuantizer) and layer.bias is not None:
            step = quantizer.scale * layer.weight_quantizer.scale.flatten()
            layer.bias.copy_((layer.bias / step).round() * step)
    for name, buffer in model.named_buffers():
        if name.endswith("scale"):
            buffer.mul_(1 + 1e-6 * torch.randn(buffer.shape, generator=generator))


@torch.no_grad()
def outputs(run: Callable[[Any], Any], batches: Iterable[Any]) -> dict[str, Tensor]:
    """What a model or an engine gives for all batches: each output by its name or its number."""
    parts = [_named(run(batch)) for batch in batches]
    return {
        name: torch.cat([torch.as_tensor(part[name]) for part in parts]).clone()
        for name in parts[0]
    }


def _named(outputs: Any) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return dict(outputs)
    each = outputs if isinstance(outputs, tuple | list) else [outputs]
    return {str(number): output for number, output in enumerate(each)}


def _worst_db(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    return min(sqnr_db(found[name], expected[name]) for name in found)


def _modules_before(model: nn.Module) -> dict[str, nn.Module]:
    """For each module that a graph calls on the result of another: that other one."""
    modules = dict(model.named_modules())
    calls = model.graph.nodes if isinstance(model, torch.fx.GraphModule) else []
    before = {}
    for node in calls:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(source, torch.fx.Node) and source.op == "call_module":
            before[node.target] = modules[source.target]
    return before


def train_step(model: nn.Module, images: Tensor) -> None:
    """One step of gradient descent on all outputs that the model gives in train mode.

    Batch norms take nearly all their statistics from it, so that signals keep their size in eval
    mode.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 0.9
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    outputs = model.train()(images)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    labels = torch.arange(len(images))
    sum(nn.functional.cross_entropy(logits, labels) for logits in outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} got no gradient"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
    optimizer.step()


def agreement(found: Tensor, expected: Tensor) -> float:
    """Fraction of images [images, classes, ...] or pixels with the same likeliest class."""
    return float((found.argmax(1) == expected.argmax(1)).double().mean())


def sqnr_db(found: Tensor, expected: Tensor) -> float:
    """10 log10 of the expected outputs' energy over that of the difference, at most 100."""
    noise = float((found - expected).double().square().sum())
    signal = float(expected.double().square().sum())
    if signal == 0:
        return 0.0 if noise else 100.0
    return 10 * math.log10(signal / max(noise, 1e-10 * signal))
