"""The deploy step: the engine's file, and what was measured on it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from micronet.deployment.parity import Parity, compare, where_they_part, worst_images
from micronet.deployment.timing import Timing, time_calls
from micronet.errors import DeployError, describe_error, listed
from micronet.measure import FLOAT_BITS, activation_bits, gflops, params_m, weight_bits
from micronet.pipeline.artifact_folders import refuse_others_files
from micronet.pipeline.context import Context
from micronet.pipeline.folder import Record, artifact_name
from micronet.pipeline.measuring import class_notes, compared, type_after
from micronet.pipeline.progress import Bar
from micronet.pipeline.results import Row
from micronet.quantization import convert
from micronet.recipe import Deploy
from micronet.storage.files import replacing_directory
from micronet.techniques import Artifact, DeployBackend, Runner, TensorSpec
from micronet.techniques.deploy_backend import FLOAT
from micronet.training.loop import Images, answers, read

_BATCH = 64


@attrs.frozen
class Engine:
    """A deployed model, ready to run.

    Args:
        artifact: It.
        runner: Its engine.
        outputs: The engine's logits [images, classes] for the test set.
        parity: How they compare with the simulation's.
    """

    artifact: Artifact
    runner: Runner
    outputs: NDArray[np.float32]
    parity: Parity


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
    simulated, labels = simulate(model, context.test_set, accelerator=context.accelerator)
    float_model = context.model_after(context.float_index())
    if not context.accelerator.is_main_process:
        return Record(row=None)
    directory = context.folder.deployed / artifact_name(index + 1, step.backend)
    example_inputs = context.example_inputs
    refuse_others_files(directory)
    with replacing_directory(directory) as temporary:
        engine = build_engine(
            step, backend, model, temporary, example_inputs, context.test_set, simulated, bar
        )
        source = os.path.relpath(context.folder.record(context.name(index - 1)), directory)
        attrs.evolve(engine.artifact, source=source).write_card()
        float_artifact = export(
            backend.for_float(), float_model, example_inputs, temporary / FLOAT, step
        )
        float_runner = backend.load(float_artifact, threads=step.threads)
        batch = _latency_batch(context.test_set, step.latency_batch)
        timing = time_calls([lambda: engine.runner(batch), lambda: float_runner(batch)])
        ms, float_ms = timing.medians
        size_mb = engine.artifact.size_bytes / 1e6
    classes = engine.outputs.argmax(1)
    row = compared(
        context,
        Row(
            step=context.name(index),
            type=f"{type_after(context, index)}, {step.backend}",
            w_bits=weight_bits(model),
            a_bits=activation_bits(model),
            accuracy=float((classes == labels).mean()),
            gflops=gflops(model.cpu(), example_inputs),
            params_m=params_m(model),
            size_mb=size_mb,
            latency_ms=ms,
            float_latency_ms=float_ms,
            speedup=float_ms / ms,
            disturbed=timing.disturbed,
            parity_top1=engine.parity.top1,
            parity_max_error=engine.parity.max_error,
            parity_mean_error=engine.parity.mean_error,
            artifact=directory.relative_to(context.folder.path).as_posix(),
            notes=class_notes(classes),
        ),
    )
    return Record(row, remarks=[*engine.artifact.remarks, *_remarks(step.backend, row, timing)])


def build_engine(
    step: Deploy,
    backend: DeployBackend,
    model: nn.Module,
    directory: Path,
    example_inputs: tuple[Tensor, ...],
    test_set: Images,
    simulated: NDArray[np.float32],
    bar: Bar,
) -> Engine:
    """Exports a model, loads its engine, and compares that with the simulated model.

    Raises:
        DeployError: The export fails, or they disagree beyond `min_parity` of the step; the message
            says where they first part.
    """
    artifact = export(backend, model, example_inputs, directory, step)
    runner = backend.load(artifact, threads=step.threads)
    outputs = run_engine(runner, artifact, test_set, bar)
    parity = compare(model, simulated, outputs)
    finite = math.isfinite(parity.max_error)
    if parity.top1 < step.min_parity or not finite:
        worst = worst_images(simulated, outputs)
        images = torch.stack([test_set[int(place)][0] for place in worst])
        infinite = f" One side alone gives NaN or Inf for test image {worst[0]}."
        raise DeployError(
            f"{step.backend} and the simulated model agree on {parity.top1:.2%} of {len(outputs)} "
            f"test images; min_parity is {step.min_parity:.2%}.{'' if finite else infinite} "
            f"{where_they_part(model, backend, images, dynamic=_dynamic(step))}"
        )
    return Engine(artifact, runner, outputs, parity)


def export(
    backend: DeployBackend,
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    directory: Path,
    step: Deploy,
) -> Artifact:
    """Writes a model's artifact as a deploy step asks for it."""
    inference = convert(model).cpu().to(memory_format=torch.contiguous_format)
    return backend.export(inference, example_inputs, directory, dynamic=_dynamic(step))


def simulate(
    model: nn.Module, data: Images, *, accelerator: Accelerator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The simulated model's logits [images, classes], and the labels, on every process."""
    found = list(answers(model, data, accelerator=accelerator))
    logits, labels = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return logits, labels


def run_engine(runner: Runner, artifact: Artifact, data: Images, bar: Bar) -> NDArray[np.float32]:
    """The engine's logits [images, classes].

    Raises:
        DeployError: It can't run on such images, or gives something else.
    """
    takes, gives = artifact.signature.inputs.parts, artifact.signature.outputs
    if len(takes) != 1 or not isinstance(takes[0], TensorSpec) or not isinstance(gives, TensorSpec):
        raise DeployError(
            f"{artifact.directory} takes {listed(s.name for s in artifact.signature.input_specs)} "
            f"and gives {listed(s.name for s in artifact.signature.output_specs)}; accuracy is "
            f"measured of models that take images and give one number for each class."
        )
    total = len(data)  # type: ignore[arg-type]
    found: list[NDArray[np.float32]] = []
    for images in _batches(data, _BATCH):
        try:
            found.append(runner(images))
        except Exception as error:  # each engine has exceptions of its own
            raise DeployError(
                f"{artifact.directory} fails on images {list(images.shape[1:])}; it was exported "
                f"with {list(artifact.input_shape[1:])}: {describe_error(error)}."
            ) from error
        bar.update(sum(map(len, found)), total)
    return np.concatenate(found)


def _remarks(backend: str, row: Row, timing: Timing) -> list[str]:
    remarks = []
    ms, float_ms = timing.medians
    if ms > float_ms and row.w_bits != FLOAT_BITS:
        remarks.append(
            f"The float model is faster on {backend}; layers without a kernel for integers cost "
            f"more than the others gain."
        )
    if timing.disturbed:
        remarks.append(timing.warning)
    return remarks


def _dynamic(step: Deploy) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("batch", *step.dynamic)))


def _latency_batch(data: Images, size: int) -> NDArray[np.float32]:
    images = next(_batches(data, size))
    repeats = -(-size // len(images))
    return np.concatenate([images] * repeats)[:size]


def _batches(data: Images, size: int) -> Iterator[NDArray[np.float32]]:
    for images, _ in read(DataLoader(data, size)):
        yield np.ascontiguousarray(images.numpy())
