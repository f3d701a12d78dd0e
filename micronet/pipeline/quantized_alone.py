"""How much of the task's main figure each layer costs when it alone is quantized."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from micronet import registry
from micronet.errors import OptionError
from micronet.pipeline.context import Context, open_run
from micronet.pipeline.sensitivity import drawing, last_float, literal, value
from micronet.quantization import quantized_layers
from micronet.storage.files import replacing
from micronet.techniques import ByLayer, Figure, Quantizer
from micronet.training.evaluation import answers, collated, read
from micronet.training.kernels import channels_last

_BATCH = 64


@attrs.frozen
class LayerAlone:
    """What is left when one layer is quantized, and all others are not.

    Args:
        layer: Its name.
        value: The main figure on the test set.
        sqnr_db: Signal to quantization noise of the outputs, in decibels, which needs no labels:
            10 log10 of the sum of the float model's squared outputs over that of squared errors.
            `None` where there are no errors, or outputs come in other numbers than before.
    """

    layer: str
    value: float
    sqnr_db: float | None


@attrs.frozen
class QuantizedAlone:
    """Of a run's float model.

    Args:
        step: The step that left the model.
        figure: What is measured on the test set: the main figure of the run's task.
        value: Of the float model.
        layers: In the order of the model's modules.
    """

    step: str
    figure: Figure
    value: float
    layers: Sequence[LayerAlone]


def quantized_alone(
    run: Path | str,
    quantizer: str,
    options: Mapping[str, Any],
    *,
    batches: int = 8,
    cpu: bool = False,
    model: str | None = None,
    data: str | None = None,
    task: str | None = None,
) -> QuantizedAlone:
    """Quantizes each layer of a run's last float model alone; nothing is trained.

    Args:
        run: The run's folder.
        quantizer: Its name.
        options: Its options.
        batches: Of 64 training images, for observers that need data.
        cpu: Stay on the CPU where there is a GPU.
        model: As `micronet.pipeline.context.open_run` takes it.
        data: The same.
        task: The same.

    Raises:
        DataError: There is no run, or no float model in it.
        OptionError: The quantizer has no such options.
        QuantizationError: No layer can be quantized.
    """
    context = open_run(run, cpu=cpu, model=model, data=data, task=task)
    index = last_float(context)
    try:
        base: Quantizer = registry.create("quantizer", quantizer, **options)
    except OptionError as error:
        raise OptionError(f"quantizer {quantizer!r}: {error}", error.option) from error
    whole = context.model_after(index)
    wanted = list(_outputs(context, whole))
    before = value(context, whole)
    names = [name for name, _ in quantized_layers(_prepared(context, base, whole))]
    found = []
    for name in names:
        others = {literal(other): "float" for other in names if other != name}
        alone = _prepared(context, ByLayer(base, others), context.model_after(index))
        if base.needs_data:
            base.calibrate(alone, _images(context, batches))
        noise = _sqnr_db(wanted, _outputs(context, alone))
        found.append(LayerAlone(name, value(context, alone), noise))
    return QuantizedAlone(context.name(index), context.task.figures[0], before, found)


def plot(found: QuantizedAlone, file: Path | str) -> None:
    """Draws each layer's signal-to-noise ratio as a bar, into a PNG.

    Raises:
        DataError: matplotlib is not installed.
    """
    figure = drawing()(figsize=(8, 1 + 0.25 * len(found.layers)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([each.layer for each in found.layers], [each.sqnr_db or 0.0 for each in found.layers])
    axes.invert_yaxis()
    axes.set(xlabel="signal to quantization noise of the outputs (dB), this layer alone quantized")
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")


def _prepared(context: Context, quantizer: Quantizer, model: nn.Module) -> nn.Module:
    prepared = quantizer.prepare(model.cpu(), context.example_inputs)
    return channels_last(prepared.to(context.accelerator.device))


def _images(context: Context, batches: int) -> Iterator[Tensor]:
    loader: Any = context.accelerator.prepare_data_loader(
        DataLoader(context.train_set, _BATCH, collate_fn=collated(context.task))
    )
    for number, (images, _) in enumerate(read(loader)):
        if number == batches:
            return
        yield images


def _outputs(context: Context, model: nn.Module) -> Iterator[list[Tensor]]:
    for outputs, _ in answers(
        model, context.test_set, task=context.task, accelerator=context.accelerator
    ):
        leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        yield [leaf for leaf in leaves if leaf.is_floating_point()]


def _sqnr_db(wanted: Sequence[list[Tensor]], found: Iterator[list[Tensor]]) -> float | None:
    signal = noise = 0.0
    for expected, outputs in zip(wanted, found, strict=True):
        if [leaf.shape for leaf in expected] != [leaf.shape for leaf in outputs]:
            return None
        for one, other in zip(expected, outputs, strict=True):
            signal += float(one.double().square().sum())
            noise += float((one.double() - other.double()).square().sum())
    return 10 * math.log10(signal / noise) if signal and noise else None
