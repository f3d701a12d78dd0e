"""The training loop, on Accelerate: one process or many, CPU or GPUs, the same code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset

from micronet.errors import DataError, MicronetError, RunError, describe_error, lost_worker
from micronet.graph.modes import evaluating
from micronet.techniques import Metric, Task
from micronet.training.resuming import TrainingState, check_resumable

Images = Dataset[tuple[Tensor, Any]]
_EVALUATION_BATCH = 256
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
    sparsity: float | None


def train(
    model: nn.Module,
    data: Images,
    options: TrainingOptions,
    *,
    task: Task,
    accelerator: Accelerator,
    seed: int,
    regularize: Callable[[nn.Module], None] | None = None,
    resume: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] = lambda _: None,
    on_batch: Callable[[int, int, float | None], None] = lambda *_: None,
) -> None:
    """Trains a model in place, with the loss of its task.

    Each epoch's order, augmentation and dropout follow from `seed` and the epoch's number alone,
    so a training resumed from an epoch's state ends with the same bits as one that never stopped.

    Args:
        model: On the accelerator's device.
        data: Gives (image, target).
        options: How.
        task: What the model is for.
        accelerator: Where.
        seed: Of this training.
        regularize: Called between backward and step with the bare model.
        resume: State to go on from.
        on_epoch: Gets the state after each epoch, on every process.
        on_batch: Gets batches done, batches in all, and now and then the loss.

    Raises:
        RunError: The loss is NaN or infinite, or can't be taken of what the model gives; or the
            model is frozen.
        DataError: The data set raises something.
    """
    batches = len(_batches(data, task, options, accelerator, seed, epoch=0))
    optimizer = _optimizer(model, options)
    scheduler = _scheduler(optimizer, options, batches)
    start = 0
    if resume is not None:
        try:
            check_resumable(resume, optimizer, scheduler, options.epochs)
        except DataError as error:
            raise RunError(
                f"The training's checkpoint does not fit: {error}. Without it the step begins anew."
            ) from error
        model.load_state_dict(resume.model)
        optimizer.load_state_dict(resume.optimizer)
        scheduler.load_state_dict(resume.scheduler)
        start = resume.epoch
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    total = options.epochs * batches
    for epoch in range(start, options.epochs):
        set_seed(_epoch_seed(seed, epoch))
        wrapped.train()
        for number, (images, targets) in enumerate(
            read(_batches(data, task, options, accelerator, seed, epoch))
        ):
            loss = task.training_loss(wrapped, laid_out(images), targets)
            accelerator.backward(loss)
            if regularize is not None:
                regularize(accelerator.unwrap_model(wrapped))
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            done = epoch * batches + number + 1
            if number % _CHECK_EVERY == 0 or number + 1 == batches:
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
        on_epoch(
            TrainingState(
                epoch + 1, model.state_dict(), optimizer.state_dict(), scheduler.state_dict()
            )
        )
    accelerator.free_memory()


def read(batches: Iterable[Any]) -> Iterator[tuple[Tensor, Any]]:
    """Batches of (images, targets); what a data set raises is told as its fault."""
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except MicronetError as error:
            raise DataError(_sentence(error)) from error
        except Exception as error:  # a user's data set may raise anything
            told = f"Reading the data fails: {describe_error(error)}."
            raise lost_worker(error) or DataError(told) from error
        yield batch


def _sentence(error: MicronetError) -> str:
    """What an error says; torch puts the traceback of a data loader's worker before it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    return text.rstrip().splitlines()[-1].partition(": ")[2]


@torch.no_grad()
def answers(
    model: nn.Module,
    data: Images,
    *,
    task: Task,
    accelerator: Accelerator,
    batch_size: int = _EVALUATION_BATCH,
) -> Iterator[tuple[Any, Any]]:
    """A model's outputs and the targets on the CPU, in the data's order, on every process.

    Raises:
        RunError: The outputs for an image give no answer, such as NaN.
        DataError: The data set raises something.
    """
    loader: Any = accelerator.prepare_data_loader(
        DataLoader(data, batch_size, collate_fn=task.collate)
    )
    done = 0
    with evaluating(model):
        for images, targets in read(loader):
            outputs = _gathered(model(laid_out(images)), accelerator)
            wanted = _gathered(targets, accelerator)
            place = task.first_unreadable(outputs)
            if place is not None:
                raise RunError(
                    f"The model gives NaN or Inf for test image {done + place}, so no answer: look "
                    f"for them in the image, and for weights that grew too large."
                )
            done += len(images) * accelerator.num_processes
            yield _on_cpu(outputs), _on_cpu(wanted)


def measured(
    model: nn.Module,
    data: Images,
    *,
    task: Task,
    accelerator: Accelerator,
    batch_size: int = _EVALUATION_BATCH,
) -> Metric:
    """The task's metric after every image of a data set, on every process; raises as `answers`."""
    metric = task.metric()
    for outputs, targets in answers(
        model, data, task=task, accelerator=accelerator, batch_size=batch_size
    ):
        metric.update(outputs, targets)
    return metric


def _gathered(value: Any, accelerator: Accelerator) -> Any:
    """What all processes have of a batch; a list has an entry for each image."""
    if accelerator.num_processes == 1:
        return value
    if isinstance(value, list):
        return accelerator.gather_for_metrics(_on_cpu(value), use_gather_object=True)
    return accelerator.gather_for_metrics(value)


def _on_cpu(value: Any) -> Any:
    return tree_map_only(Tensor, Tensor.cpu, value)


@contextmanager
def deterministic() -> Iterator[None]:
    """Asks torch for kernels that give the same bits each time."""
    before = torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]


def channels_last(model: nn.Module) -> nn.Module:
    """Lays convolution weights out as the CPU's and tensor cores' fast kernels want them."""
    return model.to(memory_format=torch.channels_last)


def laid_out(images: Tensor) -> Tensor:
    """Images in memory as `channels_last` has the weights."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images  # noqa: PLR2004


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
        collate_fn=task.collate,
    )
    return accelerator.prepare_data_loader(loader)


def _optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise RunError("The model has no parameter that requires a gradient, so none to train.")
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, options.lr, momentum=0.9, weight_decay=options.weight_decay
        )
    return torch.optim.AdamW(parameters, options.lr, weight_decay=options.weight_decay, fused=True)


def _scheduler(
    optimizer: torch.optim.Optimizer, options: TrainingOptions, batches: int
) -> torch.optim.lr_scheduler.LRScheduler:
    total = options.epochs * batches
    if options.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7_919) % 2**31


def _share_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Batch norms average their own rank's images; all go on with rank 0's averages."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)
