"""The training loop, on Accelerate: one process or many, CPU or GPUs, the same code."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Literal

import attrs
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from micronet.errors import DataError, RunError
from micronet.techniques import Task
from micronet.training.averaging import Average
from micronet.training.curve import EPOCH, LOSS, RATE, Curve, best_epoch, without_progress
from micronet.training.evaluation import Images, collated, measured, read
from micronet.training.kernels import laid_out
from micronet.training.optimizers import make_optimizer
from micronet.training.precision import Precision, autocast, make_scaler
from micronet.training.resuming import TrainingState, check_resumable
from micronet.training.schedules import Schedule

Objective = Callable[[nn.Module, Tensor, Any], Tensor]
"""The loss of one batch: of a model, its inputs and their targets."""
_CHECK_EVERY = 20
"""Batches between two looks at the loss; each look waits for the device."""


@attrs.frozen(kw_only=True)
class TrainingOptions:
    """How to train; see `micronet.recipe.Train`."""

    epochs: int
    lr: float
    batch_size: int
    optimizer: str
    weight_decay: float
    schedule: str
    workers: int
    warmup: float | None = None
    parameters: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    clip: float | None = None
    accumulate: int = 1
    precision: Precision = "float32"
    average: float | None = None
    keep: Literal["last", "best"] = "last"
    patience: int | None = None

    @classmethod
    def of(cls, step: Any) -> TrainingOptions:
        """What of a recipe's `Train` the loop works by."""
        names = [field.name for field in attrs.fields(cls)]
        return cls(**{name: getattr(step, name) for name in names})


@attrs.define
class _Training:
    """What a training consists of beside its model, and what of it a checkpoint keeps."""

    model: nn.Module
    options: TrainingOptions
    task: Task
    accelerator: Accelerator
    batches: int
    watched: Images | None
    optimizer: torch.optim.Optimizer = attrs.field(init=False)
    scheduler: torch.optim.lr_scheduler.LambdaLR = attrs.field(init=False)
    scaler: torch.amp.GradScaler = attrs.field(init=False)
    average: Average | None = attrs.field(init=False)
    curve: Curve = attrs.field(factory=list)
    best: dict[str, Any] | None = None

    def __attrs_post_init__(self) -> None:
        options = self.options
        self.optimizer = make_optimizer(
            self.model,
            options.optimizer,
            lr=options.lr,
            weight_decay=options.weight_decay,
            groups=options.parameters,
        )
        updates = options.epochs * math.ceil(self.batches / options.accumulate)
        schedule = Schedule(options.schedule, options.warmup, updates)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: schedule(step),  # noqa: PLW0108 (of a callable object torch keeps the state)
        )
        self.scaler = make_scaler(options.precision, self.accelerator.device)
        self.average = None if options.average is None else Average(self.model, options.average)

    @property
    def figures(self) -> list[str]:
        """What each epoch is measured by."""
        return [] if self.watched is None else [figure.name for figure in self.task.figures]

    @property
    def rate(self) -> float:
        """The highest learning rate of a group, as it is now."""
        return max(map(float, self.scheduler.get_last_lr()))

    @property
    def over(self) -> bool:
        """Whether no epoch is left, or the last ones brought no progress."""
        patience, main = self.options.patience, self.task.figures[0]
        tired = patience is not None and without_progress(self.curve, main) >= patience
        return len(self.curve) >= self.options.epochs or tired

    def resume(self, state: TrainingState) -> None:
        try:
            check_resumable(
                state,
                self.state(),
                self.optimizer,
                kept=self.options.keep == "best",
                figures=self.figures,
                epochs=self.options.epochs,
            )
        except DataError as error:
            raise RunError(
                f"The training's checkpoint does not fit: {error}. Without it the step begins anew."
            ) from error
        if self.average is not None:
            self.average.load_state_dict(state.average or {})
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.scheduler.load_state_dict(state.scheduler)
        self.scaler.load_state_dict(state.scaler)
        self.curve, self.best = list(state.curve), state.best

    def update(self, regularize: Callable[[nn.Module], None] | None) -> None:
        """One step of the optimizer with the gradients that there are."""
        options = self.options
        self.scaler.unscale_(self.optimizer)
        if regularize is not None:
            regularize(self.model)
        if options.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.model)

    def close_epoch(self, loss: float) -> None:
        """Measures the model after an epoch, and keeps it if it is the best so far."""
        point: dict[str, float] = {EPOCH: len(self.curve) + 1, LOSS: loss, RATE: self.rate}
        with nullcontext() if self.average is None else self.average.in_place(self.model):
            if self.watched is not None:
                metric = measured(
                    self.model, self.watched, task=self.task, accelerator=self.accelerator
                )
                point.update(metric.compute())
            self.curve.append(point)
            last = len(self.curve) - 1
            if self.options.keep == "best" and best_epoch(self.curve, self.task.figures[0]) == last:
                self.best = copy.deepcopy(self.model.state_dict())

    def state(self) -> TrainingState:
        return TrainingState(
            epoch=len(self.curve),
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scheduler=self.scheduler.state_dict(),
            scaler=self.scaler.state_dict(),
            average=None if self.average is None else self.average.state_dict(),
            best=self.best,
            curve=self.curve,
        )

    def finish(self) -> None:
        """Leaves in the model what the training was for."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.average is not None:
            self.average.copy_to(self.model)


def train(
    model: nn.Module,
    data: Images,
    options: TrainingOptions,
    *,
    task: Task,
    accelerator: Accelerator,
    seed: int,
    objective: Objective | None = None,
    watched: Images | None = None,
    regularize: Callable[[nn.Module], None] | None = None,
    resume: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] = lambda _: None,
    on_batch: Callable[[int, int, float | None], None] = lambda *_: None,
) -> Curve:
    """Trains a model in place.

    Each epoch's order, augmentation and dropout follow from `seed` and the epoch's number alone,
    so a training resumed from an epoch's state ends with the same bits as one that never stopped.

    Args:
        model: On the accelerator's device.
        data: Gives (image, target).
        options: How; to keep the best epoch, or to stop early, takes `watched`.
        task: What the model is for.
        accelerator: Where.
        seed: Of this training.
        objective: What to make small; by default the task's loss.
        watched: Measured after each epoch.
        regularize: Called between backward and step with the bare model.
        resume: State to go on from.
        on_epoch: Gets the state after each epoch, on every process.
        on_batch: Gets batches done, batches in all, and now and then the loss.

    Returns:
        What each epoch came to.

    Raises:
        RunError: The loss is NaN or infinite, or can't be taken of what the model gives; or the
            model is frozen.
        DataError: The data set raises something.
    """
    batches = len(_batches(data, task, options, accelerator, seed, epoch=0))
    training = _Training(model, options, task, accelerator, batches, watched)
    if resume is not None:
        training.resume(resume)
    wrapped = accelerator.prepare(model)
    total = options.epochs * batches
    while not training.over:
        epoch = len(training.curve)
        set_seed(_epoch_seed(seed, epoch))
        wrapped.train()
        losses = torch.zeros((), device=accelerator.device)
        for number, (images, targets) in enumerate(
            read(_batches(data, task, options, accelerator, seed, epoch))
        ):
            ready = number % options.accumulate == options.accumulate - 1 or number == batches - 1
            with nullcontext() if ready else accelerator.no_sync(wrapped):
                with autocast(options.precision, accelerator.device):
                    loss = (objective or task.training_loss)(wrapped, laid_out(images), targets)
                share = _accumulated(number, batches, options.accumulate)
                accelerator.backward(training.scaler.scale(loss / share))
            losses += loss.detach()
            if ready:
                training.update(regularize)
            done = epoch * batches + number + 1
            if number % _CHECK_EVERY == 0 or number == batches - 1:
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise RunError(
                        f"The loss became {value} in epoch {epoch + 1}. Lower lr (now "
                        f"{options.lr:g}), or look for NaN in the data."
                    )
                on_batch(done, total, value)
            else:
                on_batch(done, total, None)
        _share_buffers(model, accelerator)
        mean = accelerator.reduce(losses / batches, "mean")
        training.close_epoch(float(mean))
        on_epoch(training.state())
    training.finish()
    accelerator.free_memory()
    return training.curve


def _accumulated(number: int, batches: int, accumulate: int) -> int:
    """The batches whose gradients are added up with this one's; an epoch's last may be fewer."""
    first = number - number % accumulate
    return min(accumulate, batches - first)


def _batches(
    data: Images,
    task: Task,
    options: TrainingOptions,
    accelerator: Accelerator,
    seed: int,
    epoch: int,
) -> Any:
    generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
    loader = DataLoader(
        data,
        options.batch_size,
        shuffle=True,
        drop_last=len(data) >= options.batch_size,  # type: ignore[arg-type]
        num_workers=options.workers,
        generator=generator,
        collate_fn=collated(task),
    )
    return accelerator.prepare_data_loader(loader)


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7_919) % 2**31


def _share_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Batch norms average their own rank's images; all go on with rank 0's averages."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)
