"""A recipe's steps on two images, before any work: what fails here would fail after hours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from micronet.errors import MicronetError, describe_error
from micronet.graph.copying import copy_of
from micronet.graph.modes import evaluating
from micronet.quantization import convert
from micronet.recipe import Calibrate, Deploy, Freeze, Fuse, Prune, Quantize, Train
from micronet.recipe.plain_yaml import Key
from micronet.recipe.resolution import Resolved
from micronet.techniques import Task
from micronet.training.batch_norms import measure_statistics
from micronet.training.distillation import Distillation
from micronet.training.loop import TrainingOptions, train
from micronet.training.objective import Objective

_RATE = 1e-12
"""Leaves the weights as they are: a step of large size would harm those after it."""

Samples = Sequence[tuple[Tensor, Any]]


def rehearse(
    resolved: Resolved, task: Task, model: nn.Module, samples: Samples, accelerator: Accelerator
) -> tuple[Key, str] | None:
    """Takes every step of a recipe with a few images; an engine that is not here is left out.

    Args:
        resolved: The recipe.
        task: What the model is for.
        model: Its first; it is changed.
        samples: Two of the training set.
        accelerator: Where to train.

    Returns:
        The key of the first step that fails, and why; `None` if none does.
    """
    rehearsal = _Rehearsal(task, model, samples, accelerator, copy_of(model))
    if (fault := rehearsal.loses_the_batch()) is not None:
        return ("model",), fault
    for index, (step, technique) in enumerate(
        zip(resolved.recipe.steps, resolved.techniques, strict=True)
    ):
        action = _ACTIONS.get(type(step))
        given = technique
        if isinstance(step, Train):
            given = {key: own for (at, key), own in resolved.callables.items() if at == index}
        try:
            if action is not None:
                action(rehearsal, step, given)
        except MicronetError as error:
            return ("steps", index, step.key), f"{step.key} will fail: {error}"
        except (Exception, SystemExit, GeneratorExit) as error:  # anybody's code
            told = f"{step.key} will fail: {describe_error(error)}."
            return ("steps", index, step.key), told
    return None


@attrs.define
class _Rehearsal:
    """The model as far as the steps have brought it, and what it is tried on."""

    task: Task
    model: nn.Module
    samples: Samples
    accelerator: Accelerator
    first: nn.Module
    quantizer: Any = None

    @property
    def images(self) -> Tensor:
        return torch.stack([image for image, _ in self.samples])

    def train(self, step: Train, callables: Mapping[str, Any]) -> None:
        """An epoch of both images, in batches as large as the step's."""
        options = attrs.evolve(
            step,
            lr=_RATE,
            parameters={name: {**group, "lr": _RATE} for name, group in step.parameters.items()},
            epochs=1,
            workers=0,
            keep="last",
            patience=None,
            batch_size=min(step.batch_size, len(self.samples)),
        )
        train(
            self.model.to(self.accelerator.device),
            _Listed(self.samples),
            TrainingOptions.of(options),
            task=self.task,
            accelerator=self.accelerator,
            seed=0,
            objective=self.objective(step, callables),
        )
        self.model.cpu()

    def objective(self, step: Train, callables: Mapping[str, Any]) -> Objective:
        """The loss; a teacher of the run's own is stood for by the first model."""
        distillation = None
        if step.teacher is not None:
            teacher = callables["teacher"]() if "teacher" in callables else self.first
            teacher = teacher.to(self.accelerator.device).eval().requires_grad_(False)
            distillation = Distillation(teacher, self.task, step.temperature, step.features)
        own = callables["loss"].function if "loss" in callables else None
        return Objective(task=self.task, own=own, distillation=distillation, weight=step.weight)

    def prune(self, _: Prune, pruner: Any) -> None:
        self.model = pruner.prune(self.model, (self.images,)).model

    def quantize(self, _: Quantize, quantizer: Any) -> None:
        self.model, self.quantizer = quantizer.prepare(self.model, (self.images,)), quantizer

    def calibrate(self, _: Calibrate, __: Any) -> None:
        if self.quantizer is None:
            measure_statistics(self.model, [self.images], self.accelerator)
        else:
            self.quantizer.calibrate(self.model, [self.images])

    def freeze(self, _: Freeze, __: Any) -> None:
        self.quantizer.freeze(self.model)

    def fuse(self, _: Fuse, fuser: Any) -> None:
        self.model = fuser.fuse(self.model, (self.images,))

    def deploy(self, step: Deploy, backend: Any) -> None:
        if backend.available() is not None:
            return
        inference = convert(self.model).to(memory_format=torch.contiguous_format)
        with tempfile.TemporaryDirectory() as folder:
            dynamic = tuple(dict.fromkeys(("batch", *step.dynamic)))
            backend.export(inference, (self.images,), Path(folder), dynamic=dynamic)

    @torch.no_grad()
    def loses_the_batch(self) -> str | None:
        """What is wrong with a model that gives something of another shape for a single image."""
        with evaluating(self.model):
            both, one = (self.model(images) for images in (self.images, self.images[:1]))
        if not isinstance(one, Tensor) or one.shape == (1, *both.shape[1:]):
            return None
        return (
            f"the model gives {list(both.shape)} for two images, and {list(one.shape)} for one, "
            f"which the last batch of a set may hold; look for squeeze() in it."
        )


class _Listed(Dataset[tuple[Tensor, Any]]):
    """A data set of a few samples."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.samples[index]


_ACTIONS: dict[type[Any], Callable[[_Rehearsal, Any, Any], None]] = {
    Train: _Rehearsal.train,
    Prune: _Rehearsal.prune,
    Quantize: _Rehearsal.quantize,
    Calibrate: _Rehearsal.calibrate,
    Freeze: _Rehearsal.freeze,
    Fuse: _Rehearsal.fuse,
    Deploy: _Rehearsal.deploy,
}
