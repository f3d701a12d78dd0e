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
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)
from torch.utils.data import DataLoader, Dataset

from micronet.errors import DataError, MicronetError, RunError, describe_error
from micronet.graph.modes import evaluating
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
    accelerator: Accelerator,
    seed: int,
    regularize: Callable[[nn.Module], None] | None = None,
    resume: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] = lambda _: None,
    on_batch: Callable[[int, int, float | None], None] = lambda *_: None,
) -> None:
    """Trains a classifier in place, with cross entropy.

    Each epoch's order, augmentation and dropout follow from `seed` and the epoch's number alone,
    so a training resumed from an epoch's state ends with the same bits as one that never stopped.

    Args:
        model: On the accelerator's device.
        data: Gives (image, label).
        options: How.
        accelerator: Where.
        seed: Of this training.
        regularize: Called between backward and step with the bare model.
        resume: State to go on from.
        on_epoch: Gets the state after each epoch, on every process.
        on_batch: Gets batches done, batches in all, and now and then the loss.

    Raises:
        RunError: The loss is NaN or infinite, or the model gives no logits or is frozen.
        DataError: The data set raises something.
    """
    batches = len(_batches(data, options, accelerator, seed, epoch=0))
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
        for number, (images, labels) in enumerate(
            read(_batches(data, options, accelerator, seed, epoch))
        ):
            logits = wrapped(_laid_out(images))
            _check(logits)
            loss = F.cross_entropy(logits, labels.long())
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


def read(batches: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of (images, labels); what a data set raises is told as its fault."""
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


def lost_worker(error: Exception) -> DataError | None:
    """What to do if a process that loads data was killed.

    Torch tells so at any moment, or fails to fetch what the process has left.
    """
    lost = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    if not lost and not isinstance(error, (OSError, EOFError)):
        return None
    return DataError(
        f"Reading the data fails: {describe_error(error)}. A process that loads data may have been "
        f"killed for lack of memory: try fewer workers, or workers: 0."
    )


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
    accelerator: Accelerator,
    batch_size: int = _EVALUATION_BATCH,
) -> Iterator[tuple[Tensor, Tensor]]:
    """A model's logits [batch, classes] and the labels, in the data's order, on every process.

    Raises:
        RunError: An image has no highest logit that is finite, so no class.
        DataError: The data set raises something.
    """
    loader: Any = accelerator.prepare_data_loader(DataLoader(data, batch_size))
    done = 0
    with evaluating(model):
        for images, labels in read(loader):
            logits = model(_laid_out(images))
            _check(logits)
            gathered = accelerator.gather_for_metrics((logits, labels))
            place = first_without_class(gathered[0])
            if place is not None:
                raise RunError(
                    f"The model gives NaN or Inf for test image {done + place}, so no class: look "
                    f"for them in the image, and for weights that grew too large."
                )
            done += len(gathered[0])
            yield gathered[0].cpu(), gathered[1].cpu()


def first_without_class(logits: Tensor) -> int | None:
    """The first image whose highest logit of [images, classes] is NaN or infinite.

    A model may rule classes out by -inf; it then still tells the others apart.
    """
    places = (~logits.amax(1).isfinite()).nonzero()
    return int(places[0]) if len(places) else None


def predict(
    model: nn.Module,
    data: Images,
    *,
    accelerator: Accelerator,
    batch_size: int = _EVALUATION_BATCH,
) -> tuple[Tensor, Tensor]:
    """A model's classes for every image, and the labels: int64 [images], on every process."""
    found = [
        (logits.argmax(1), labels)
        for logits, labels in answers(model, data, accelerator=accelerator, batch_size=batch_size)
    ]
    classes, labels = zip(*found, strict=True)
    return torch.cat(classes), torch.cat(labels)


def accuracy(
    model: nn.Module,
    data: Images,
    *,
    accelerator: Accelerator,
    batch_size: int = _EVALUATION_BATCH,
) -> float:
    """Fraction of images whose likeliest class is the label."""
    classes, labels = predict(model, data, accelerator=accelerator, batch_size=batch_size)
    return float((classes == labels).double().mean())


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


def _check(logits: Any) -> None:
    if not isinstance(logits, Tensor):
        raise RunError(f"The model must give logits [batch, classes], got {type(logits).__name__}.")


def _laid_out(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images  # noqa: PLR2004


def _batches(
    data: Images, options: TrainingOptions, accelerator: Accelerator, seed: int, epoch: int
) -> Any:
    generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
    loader = DataLoader(
        data,
        options.batch_size,
        shuffle=True,
        drop_last=len(data) >= options.batch_size,  # type: ignore[arg-type]
        num_workers=options.workers,
        generator=generator,
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
