"""One way through quantization for any model: train a step, calibrate, convert, deploy, compare."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from micronet import registry
from micronet.graph import TracingError
from micronet.quantization import layers_left_in_float, quantized_layers
from micronet.techniques import Quantizer

SIZES = {"inception_v3": 299, "maxvit_t": 224, "vit_h_14": 56}
"""Height and width of the images for torchvision's models that do not take small ones."""
_SMALL = 64


@attrs.frozen
class Outcome:
    """What came of a model.

    Args:
        traced: Whether activations were quantized in a graph, not at each layer's input.
        quantized: Number of layers with quantized weights.
        in_float: Names of what keeps its weights in float.
        agreement: Fraction of images to which engine and simulation give the same class.
        sqnr_db: Signal to quantization noise of the engine's outputs against the simulation's.
        own_agreement: Of the simulation with itself, once its scales are changed in their last
            bits. Rounding amplifies such changes, random weights more than trained ones, so an
            engine that adds in another order can't come much closer.
        own_sqnr_db: Likewise.
        seconds: Of CPU time, from `prepare` to the engine's outputs.
    """

    traced: bool
    quantized: int
    in_float: list[str]
    agreement: float
    sqnr_db: float
    own_agreement: float
    own_sqnr_db: float
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


def examine(model: nn.Module, size: int, quantizer: Quantizer, directory: Path) -> Outcome:
    """Takes a float model to an engine in `directory`, and compares engine and simulation.

    Batch norms get random shifts, as trained ones have them; unshifted, whole channels of a binary
    network would lie just where the sign changes.

    Args:
        model: For images [batch, 3, size, size].
        size: Height and width, in pixels.
        quantizer: The technique.
        directory: Where the engine's file goes.

    Raises:
        AssertionError: A trained parameter got no gradient, or one that is not finite.
    """
    start = time.process_time()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(2, 3, size, size, generator=generator) for _ in range(4)]
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.bias, -0.1, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = quantizer.prepare(model, (batches[0],))
    train_step(prepared, batches[0])
    if quantizer.needs_data:
        quantizer.calibrate(prepared, batches[:2])
    fused = prepared
    with contextlib.suppress(TracingError):  # batch norms stay where they are
        fused = registry.create("fuser", "bn").fuse(prepared, (batches[0],))
    converted = quantizer.convert(fused)
    layers = dict(quantized_layers(converted))
    backend = registry.create("deploy_backend", "onnxruntime")
    artifact = backend.export(converted, (batches[0],), directory)
    runner = backend.load(artifact, threads=1)
    with torch.no_grad():
        expected = torch.cat([converted(batch) for batch in batches])
        for name, buffer in converted.named_buffers():
            if name.endswith("scale"):
                buffer.mul_(1 + 1e-6 * torch.randn(buffer.shape, generator=generator))
        changed = torch.cat([converted(batch) for batch in batches])
    found = torch.cat([torch.from_numpy(runner(batch.numpy())) for batch in batches])
    assert found.isfinite().all(), "the engine gives NaN or Inf"
    return Outcome(
        traced=isinstance(prepared, torch.fx.GraphModule),
        quantized=len(layers),
        in_float=layers_left_in_float(converted),
        agreement=agreement(found, expected),
        sqnr_db=sqnr_db(found, expected),
        own_agreement=agreement(changed, expected),
        own_sqnr_db=sqnr_db(changed, expected),
        seconds=time.process_time() - start,
    )


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
    """Fraction of images [images, classes] with the same likeliest class."""
    return float((found.argmax(1) == expected.argmax(1)).double().mean())


def sqnr_db(found: Tensor, expected: Tensor) -> float:
    """10 log10 of the expected outputs' energy over that of the difference, at most 100."""
    noise = float((found - expected).double().square().sum())
    signal = float(expected.double().square().sum())
    return 10 * math.log10(signal / max(noise, 1e-10 * signal))
