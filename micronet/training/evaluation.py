"""A model's outputs and figures over a whole data set, on one process or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset

from micronet.errors import DataError, MicronetError, RunError, describe_error, lost_worker
from micronet.graph.modes import evaluating
from micronet.techniques import Metric, Task
from micronet.training.kernels import laid_out

Images = Dataset[tuple[Tensor, Any]]
_EVALUATION_BATCH = 256


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


def collated(task: Task) -> Callable[[Sequence[tuple[Tensor, Any]]], tuple[Tensor, Any]]:
    """Makes batches of samples; the targets of images without any are `None`."""
    return partial(_collate, task)


def _collate(task: Task, samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
    bare = [target is None for _, target in samples]
    if all(bare):
        return torch.stack([image for image, _ in samples]), None
    if any(bare):
        raise DataError("Some images of the data have a target, and others have none.")
    return task.collate(samples)


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
