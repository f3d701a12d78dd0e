"""The deploy step: the engine's file, and what was measured on it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from micronet.deployment.parity import Comparison, Parity, where_they_part
from micronet.deployment.preprocessing import Preprocessed, prepared_images, raw_images
from micronet.deployment.timing import Timing, time_calls
from micronet.errors import DeployError, RunError, describe_error, listed
from micronet.graph.modes import evaluating
from micronet.measure import FLOAT_BITS, activation_bits, gflops, params_m, weight_bits
from micronet.pipeline.artifact_folders import refuse_others_files
from micronet.pipeline.context import Context
from micronet.pipeline.folder import Record, artifact_name
from micronet.pipeline.image_facts import image_facts
from micronet.pipeline.measuring import compared, type_after
from micronet.pipeline.progress import Bar
from micronet.pipeline.results import Row
from micronet.pipeline.samples import Samples
from micronet.quantization import convert
from micronet.recipe import Deploy, Named
from micronet.storage.files import replacing_directory
from micronet.techniques import (
    Artifact,
    Contents,
    DeployBackend,
    EngineInput,
    Runner,
    Task,
    TensorSpec,
)
from micronet.techniques.deploy_backend import FLOAT
from micronet.training.evaluation import read
from micronet.training.kernels import laid_out

_BATCH = 64


@attrs.frozen
class Ran:
    """What an engine gave for a data set.

    Args:
        images: How many there are.
        figures: What the task measures of the engine's answers.
        notes: What a reader should know about these.
        simulated: The same figures of the torch model; `None` without one.
        parity: How far the outputs of the two are apart; `None` without a torch model.
        agreement: How far their answers agree, in the mean over images; `None` likewise.
        worst: Places of the images on which they are furthest apart, the worst first.
    """

    images: int
    figures: Mapping[str, float]
    notes: Sequence[str] = ()
    simulated: Mapping[str, float] | None = None
    parity: Parity | None = None
    agreement: float | None = None
    worst: Sequence[int] = ()


@attrs.frozen
class Engine:
    """A deployed model, ready to run.

    Args:
        artifact: It.
        runner: Its engine.
        ran: What it gave for the test set.
    """

    artifact: Artifact
    runner: Runner
    ran: Ran


def known_input(step: Deploy, contents: Contents | None, images: Tensor) -> EngineInput | None:
    """What a step's engine takes, if not prepared images.

    Raises:
        DeployError: Nobody says how these were prepared.
    """
    given = step.engine_input
    if given is None:
        return None
    if images.dim() != 4:  # noqa: PLR2004
        raise DeployError("input is for images [batch, channels, height, width], these are not.")
    return given.known(contents, images.shape[1])


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
    if not context.accelerator.is_main_process:
        return Record(row=None)
    float_model = context.model_after(context.float_index())
    directory = context.folder.deployed / artifact_name(index + 1, step.backend)
    refuse_others_files(directory)
    example_inputs = context.example_inputs
    given = known_input(step, context.resolved.contents, example_inputs[0])
    with replacing_directory(directory) as temporary:
        engine = build_engine(
            step, backend, model, temporary, example_inputs, context.test_set, bar, given
        )
        source = os.path.relpath(context.folder.record(context.name(index - 1)), directory)
        meant = task_on_card(context.resolved.recipe.task, context.task)
        images = image_facts(context.test_set, context.resolved.contents)
        attrs.evolve(engine.artifact, source=source, task=meant, images=images).write_card()
        float_artifact = export(
            backend.for_float(), float_model, example_inputs, temporary / FLOAT, step, given
        )
        float_runner = backend.load(float_artifact, threads=step.threads)
        batch = _latency_batch(context.test_set, step.latency_batch, given)
        timing = time_calls([lambda: engine.runner(batch), lambda: float_runner(batch)])
        ms, float_ms = timing.medians
        size_mb = engine.artifact.size_bytes / 1e6
    ran = engine.ran
    assert ran.parity is not None
    row = compared(
        context,
        Row(
            step=context.name(index),
            type=f"{type_after(context, index)}, {step.backend}",
            w_bits=weight_bits(model),
            a_bits=activation_bits(model),
            figures=ran.figures,
            gflops=gflops(model.cpu(), example_inputs),
            params_m=params_m(model),
            size_mb=size_mb,
            latency_ms=ms,
            float_latency_ms=float_ms,
            speedup=float_ms / ms,
            disturbed=timing.disturbed,
            parity=ran.agreement,
            parity_max_error=ran.parity.max_error,
            parity_mean_error=ran.parity.mean_error,
            artifact=directory.relative_to(context.folder.path).as_posix(),
            notes=ran.notes,
        ),
    )
    return Record(row, remarks=[*engine.artifact.remarks, *_remarks(step.backend, row, timing)])


def build_engine(
    step: Deploy,
    backend: DeployBackend,
    model: nn.Module,
    directory: Path,
    example_inputs: tuple[Tensor, ...],
    test_set: Samples,
    bar: Bar,
    given: EngineInput | None = None,
) -> Engine:
    """Exports a model, loads its engine, and compares that with the simulated model.

    Raises:
        DeployError: The export fails, or they disagree beyond `min_parity` of the step; the message
            says where they first part.
    """
    artifact = export(backend, model, example_inputs, directory, step, given)
    runner = backend.load(artifact, threads=step.threads)
    ran = run_engine(runner, artifact, test_set, bar, model=model)
    assert ran.parity is not None
    assert ran.agreement is not None
    finite = math.isfinite(ran.parity.max_error)
    if ran.agreement < step.min_parity or not finite:
        images = torch.stack([test_set[place][0] for place in ran.worst])
        infinite = f" One side alone gives NaN or Inf for test image {ran.worst[0]}."
        raise DeployError(
            f"{step.backend} and the simulated model agree on {ran.agreement:.2%} of {ran.images} "
            f"test images; min_parity is {step.min_parity:.2%}.{'' if finite else infinite} "
            f"{where_they_part(model, backend, images, dynamic=_dynamic(step))}"
        )
    return Engine(artifact, runner, ran)


def export(
    backend: DeployBackend,
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    directory: Path,
    step: Deploy,
    given: EngineInput | None = None,
) -> Artifact:
    """Writes a model's artifact as a deploy step asks for it."""
    inference = convert(model).cpu().to(memory_format=torch.contiguous_format)
    if given is not None:
        inference = Preprocessed(inference, given)
        example_inputs = tuple(raw_images(images, given) for images in example_inputs)
    artifact = backend.export(inference, example_inputs, directory, dynamic=_dynamic(step))
    return attrs.evolve(artifact, input=given)


@torch.no_grad()
def run_engine(
    runner: Runner, artifact: Artifact, data: Samples, bar: Bar, *, model: nn.Module | None = None
) -> Ran:
    """Runs an engine, and a torch model beside it, on every image; no outputs are kept.

    Args:
        runner: The engine.
        artifact: Where it came from.
        data: The images, with their task.
        bar: Shows how far it is.
        model: To compare with.

    Raises:
        DeployError: The engine can't run on such images, gives something else than the model, or,
            without one, NaN or Inf.
        RunError: The torch model gives NaN or Inf.
    """
    task = data.task
    metric, simulated_metric = task.metric(), task.metric()
    comparison = None if model is None else Comparison(model)
    agreements: list[Tensor] = []
    done = 0
    with evaluating(model) if model is not None else nullcontext():
        for images, targets in read(DataLoader(data, _BATCH, collate_fn=task.collate)):
            if artifact.input is not None:
                images = prepared_images(  # noqa: PLW2901 (as the engine sees them)
                    raw_images(images, artifact.input), artifact.input
                )
            outputs = engine_outputs(runner, artifact, images)
            if model is None and (place := task.first_unreadable(outputs)) is not None:
                raise DeployError(
                    f"{artifact.directory} gives NaN or Inf for test image {done + place}, so no "
                    f"answer."
                )
            if model is not None and comparison is not None:
                simulated = simulate(model, images)
                if (place := task.first_unreadable(simulated)) is not None:
                    raise RunError(
                        f"The model gives NaN or Inf for test image {done + place}, so no answer."
                    )
                comparison.update(simulated, outputs)
                agreements.append(task.agreement(simulated, outputs))
                simulated_metric.update(simulated, targets)
            metric.update(outputs, targets)
            done += len(images)
            bar.update(done, len(data))
    if comparison is None:
        return Ran(done, metric.compute(), metric.notes())
    return Ran(
        done,
        metric.compute(),
        metric.notes(),
        simulated_metric.compute(),
        comparison.parity(),
        float(torch.cat(agreements).mean()),
        comparison.worst_images().tolist(),
    )


def task_on_card(named: Named, task: Task) -> dict[str, Any]:
    """A task as an artifact's card names it: with what it has learned from the model."""
    return {"name": named.name, **attrs.asdict(task, recurse=False)}  # type: ignore[arg-type]


def simulate(model: nn.Module, images: Tensor) -> Any:
    """A torch model's outputs for a batch, on the CPU."""
    device = next(iter(model.parameters()), images).device
    return tree_map_only(Tensor, Tensor.cpu, model(laid_out(images.to(device))))


def engine_outputs(runner: Runner, artifact: Artifact, images: Tensor) -> Any:
    """An engine's outputs for a batch of prepared images, as tensors.

    Raises:
        DeployError: It takes more than images, or fails on such images.
    """
    takes = artifact.signature.inputs.parts
    if len(takes) != 1 or not isinstance(takes[0], TensorSpec):
        raise DeployError(
            f"{artifact.directory} takes {listed(s.name for s in artifact.signature.input_specs)}; "
            f"figures are measured of models that take images alone."
        )
    taken = images if artifact.input is None else raw_images(images, artifact.input)
    try:
        outputs = runner(np.ascontiguousarray(taken.numpy()))
    except Exception as error:  # each engine has exceptions of its own
        raise DeployError(
            f"{artifact.directory} fails on images {list(images.shape[1:])}; it was exported "
            f"with {list(artifact.input_shape[1:])}: {describe_error(error)}."
        ) from error
    return tree_map_only(np.ndarray, torch.from_numpy, outputs)


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


def _latency_batch(data: Samples, size: int, given: EngineInput | None) -> NDArray[Any]:
    images = torch.stack([data[place][0] for place in range(min(size, len(data)))])
    images = images if given is None else raw_images(images, given)
    repeats = -(-size // len(images))
    return np.concatenate([images.numpy()] * repeats)[:size]
