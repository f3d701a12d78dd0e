"""The deploy step: the engine's file, and what was measured on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from micronet.errors import DeployError
from micronet.files import replacing_directory
from micronet.measure import Timing, activation_bits, gflops, params_m, time_calls, weight_bits
from micronet.pipeline.context import Context
from micronet.pipeline.folder import Record
from micronet.pipeline.measuring import class_notes, compared, type_after
from micronet.pipeline.progress import Bar
from micronet.pipeline.results import Row
from micronet.quantization import convert
from micronet.recipe import Deploy
from micronet.techniques import Artifact, DeployBackend, Runner
from micronet.training import predict, read

_BATCH = 64
_FLOAT = "float"


def deploy(context: Context, index: int, model: nn.Module, bar: Bar) -> Record:
    """Exports a model beside the float model it came from, and measures both on the engine.

    Returns:
        The record, without a row on processes other than the first, which have nothing to do here.

    Raises:
        DeployError: The export fails, or engine and simulation disagree beyond `min_parity`.
    """
    step, backend = context.steps[index], context.technique(index)
    assert isinstance(step, Deploy)
    assert isinstance(backend, DeployBackend)
    simulated, labels = predict(model, context.test_set, accelerator=context.accelerator)
    float_model = context.model_after(context.float_index())
    if not context.accelerator.is_main_process:
        return Record(row=None)
    directory = context.folder.deployed / f"{index + 1:02d}-{step.backend.replace(':', '-')}"
    with replacing_directory(directory) as temporary:
        artifact = _export(backend, model, context, temporary)
        (temporary / _FLOAT).mkdir()
        float_artifact = _export(backend, float_model, context, temporary / _FLOAT)
        runner = backend.load(artifact, threads=step.threads)
        found = _classes(runner, context, bar)
        parity = float((found == simulated.numpy()).mean())
        if parity < step.min_parity:
            raise DeployError(
                f"{step.backend} and the simulated model agree on {parity:.2%} of "
                f"{len(found)} test images, less than min_parity of the step, "
                f"{step.min_parity:.2%}."
            )
        float_runner = backend.load(float_artifact, threads=step.threads)
        batch = _latency_batch(context, step.latency_batch)
        timing = time_calls([lambda: runner(batch), lambda: float_runner(batch)])
        ms, float_ms = timing.medians
        size_mb = artifact.size_bytes / 1e6
    row = compared(
        context,
        Row(
            step=context.name(index),
            type=f"{type_after(context, index)}, {step.backend}",
            w_bits=weight_bits(model),
            a_bits=activation_bits(model),
            accuracy=float((found == labels.numpy()).mean()),
            gflops=gflops(model.cpu(), context.example_inputs),
            params_m=params_m(model),
            size_mb=size_mb,
            latency_ms=ms,
            float_latency_ms=float_ms,
            speedup=float_ms / ms,
            parity_top1=parity,
            artifact=directory.relative_to(context.folder.path).as_posix(),
            notes=class_notes(found),
        ),
    )
    return Record(row, remarks=[*artifact.remarks, *_remarks(step.backend, timing)])


def _remarks(backend: str, timing: Timing) -> list[str]:
    remarks = []
    ms, float_ms = timing.medians
    if ms > float_ms:
        remarks.append(
            f"The float model is faster on {backend}; layers without a kernel for integers cost "
            f"more than the others gain."
        )
    if timing.disturbed:
        remarks.append(
            f"The machine was busy: the engines waited {timing.waiting:.1f} times as long for a "
            f"processor as they ran, so do not trust these latencies."
        )
    return remarks


def _export(
    backend: DeployBackend, model: nn.Module, context: Context, directory: Path
) -> Artifact:
    inference = convert(model).cpu().to(memory_format=torch.contiguous_format)
    return backend.export(inference, context.example_inputs, directory)


def _classes(runner: Runner, context: Context, bar: Bar) -> NDArray[np.int64]:
    """The engine's class for every test image."""
    total = len(context.test_set)  # type: ignore[arg-type]
    found: list[NDArray[np.int64]] = []
    for batch in _test_batches(context, _BATCH):
        found.append(runner(batch).argmax(1))
        bar.update(sum(map(len, found)), total)
    return np.concatenate(found)


def _latency_batch(context: Context, size: int) -> NDArray[np.float32]:
    images = next(_test_batches(context, size))
    repeats = -(-size // len(images))
    return np.concatenate([images] * repeats)[:size]


def _test_batches(context: Context, size: int) -> Iterator[NDArray[np.float32]]:
    for images, _ in read(DataLoader(context.test_set, size)):
        yield np.ascontiguousarray(images.numpy())
