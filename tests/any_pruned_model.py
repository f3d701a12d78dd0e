"""One way through pruning for any model: prune, check, train a step, deploy, compare."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import attrs
import torch
from any_model import torchvision_model, train_step
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import VisionTransformer

from micronet import registry
from micronet.measure import gflops, params_m
from micronet.pruning.exactness import silenced
from micronet.techniques import Pruner


@attrs.frozen
class Outcome:
    """What came of a model.

    Args:
        params: Parameters left, as a fraction.
        flops: Multiply-accumulates left, as a fraction.
        whole: For each layer that was left whole, the reason.
        error: Of the pruned model's outputs against the original's with the removed channels
            silent, relative; `None` where layer norms see the fewer channels, which then differ.
        engine_error: Of ONNX Runtime's outputs against torch's, relative.
        seconds: That pruning took.
    """

    params: float
    flops: float
    whole: dict[str, str]
    error: float | None
    engine_error: float
    seconds: float


def model_with_statistics(name: str) -> tuple[nn.Module, int]:
    """A torchvision model whose batch norms look trained, and the size of its images."""
    model, size = torchvision_model(name)
    return with_statistics(model), size


def with_statistics(model: nn.Module) -> nn.Module:
    """The model, in place, with batch norms that look trained and a head that is not zero."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            if module.affine:
                nn.init.uniform_(module.weight, 0.2, 1.5, generator=generator)
            nn.init.uniform_(module.running_mean, -0.1, 0.1, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
    if isinstance(model, VisionTransformer):  # torchvision's start with zeros
        nn.init.normal_(model.heads.head.weight, std=0.02, generator=generator)
    return model


def examine(
    model: nn.Module, size: int, pruner: Pruner, directory: Path, *, train: bool = True
) -> Outcome:
    """Prunes a model, trains a copy of what is left by a step, and takes it to an engine.

    Args:
        model: For images [batch, 3, size, size].
        size: Height and width, in pixels.
        pruner: The technique.
        directory: Where the engine's file goes.
        train: Whether to train the copy.

    Raises:
        AssertionError: A parameter of what is left got no gradient, or one that is not finite.
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    result = pruner.prune(model, (images,))
    seconds = time.perf_counter() - start
    if train:
        train_step(copy.deepcopy(result.model), images)
    pruned = copy.deepcopy(result.model).eval()
    with torch.no_grad():
        found = pruned(images)
        expected = silenced(model, result.plan).eval()(images)
    backend = registry.create("deploy_backend", "onnxruntime")
    runner = backend.load(backend.export(pruned, (images,), directory), threads=1)
    normalized = any(
        isinstance(model.get_submodule(name.rpartition(".")[0]), nn.LayerNorm)
        or isinstance(dict(model.named_modules()).get(name), nn.LayerNorm)
        for name in result.plan.layers
    )
    return Outcome(
        params=params_m(pruned) / params_m(model),
        flops=gflops(pruned, (images,)) / gflops(model, (images,)),
        whole=result.reasons,
        error=None if normalized else relative(found, expected),
        engine_error=relative(torch.from_numpy(runner(images.numpy())), found),
        seconds=seconds,
    )


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the expected norm."""
    return float((found - expected).norm() / expected.norm())
