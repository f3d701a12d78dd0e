"""The quantizers' command lines: train or calibrate, fuse for inference, test the result."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from micronet import registry
from micronet.compression.checkpoint import SAVED, Checkpoint, build, cfg_of
from micronet.compression.command import (
    Parser,
    add_device_and_data,
    add_model_type,
    add_training,
)
from micronet.compression.quantization.translation import store_quantized_weights
from micronet.compression.session import Session
from micronet.errors import DataError
from micronet.models import MODEL_TYPES, name_of
from micronet.storage.weights import fill


@attrs.frozen
class Product:
    """What is made of a trained model for inference.

    Args:
        file: Its name, in `SAVED`.
        fused: Whether batch norms are folded away.
    """

    file: str
    fused: bool


FUSED = Product("quant_bn_fused_model_inference.pth", fused=True)
PARAMETERS = Product("quant_model_para.pth", fused=False)


def training_parser(description: str) -> Parser:
    """The flags that every quantizer's `main.py` has."""
    parser = Parser(description)
    add_device_and_data(parser)
    add_training(parser, lr=0.01, wd=1e-5)
    add_model_type(parser)
    return parser


def add_sources(parser: Parser) -> argparse._MutuallyExclusiveGroup:
    """Flags for the file to start with; without one, the model starts with fresh weights."""
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument("--resume", metavar="FILE", help="go on with a quantized model")
    sources.add_argument("--refine", metavar="FILE", help="start with a float model")
    sources.add_argument("--prune_quant", metavar="FILE", help="start with a pruned float model")
    return sources


def train(
    arguments: argparse.Namespace,
    name: str,
    technique: Any,
    *,
    resume: str | None = None,
    suffix: str = "",
    qaft: bool = False,
    calibrate: bool = False,
) -> None:
    """Quantizes a model and trains or calibrates it; writes the best into `models_save`.

    Args:
        arguments: Flags of `training_parser` and `add_sources`.
        name: The quantizer's.
        technique: The quantizer.
        resume: File of a quantized model to go on with.
        suffix: Of the file's name, behind the model's.
        qaft: Train on fixed grids, with fixed batch-norm statistics.
        calibrate: Only let the observers see `ptq_batch` batches.

    Raises:
        MicronetError: A file does not fit, or the training failed.
    """
    session = Session.open(arguments)
    source = resume or arguments.refine or arguments.prune_quant
    checkpoint = Checkpoint.load(source, arguments.model_type) if source else None
    if checkpoint is None:
        kind = name_of(arguments.model_type)
        model = technique.prepare(build(kind), ())
    elif resume:
        kind = checkpoint.model
        checkpoint.check_quantizer(technique)
        technique = checkpoint.technique()
        model = checkpoint.quantized_model()
    else:
        kind = checkpoint.model
        model = technique.prepare(checkpoint.float_model(), ())
    if qaft:
        technique.freeze(model)
    model = session.placed(model)
    path = SAVED / f"{kind}{suffix}.pth"

    def save(acc: float) -> None:
        options = attrs.asdict(technique, recurse=False)
        Checkpoint(
            path=path,
            state_dict=model.state_dict(),
            model=kind,
            cfg=cfg_of(model, kind),
            acc=acc,
            quantizer={"name": name, **options},
        ).save()

    if calibrate:
        technique.calibrate(model, session.batches(arguments.batch_size, arguments.ptq_batch))
        found = session.accuracy(model)
        session.say(f"calibrated: accuracy {found:.2%}")
        if session.accelerator.is_main_process:
            save(found)
    else:
        session.train(model, save, optimizer="adamw")
    session.say(f"{path} is written")


def inference_parser(description: str) -> Parser:
    """The flags of the commands that make a trained model ready for inference."""
    parser = Parser(description)
    add_model_type(parser)
    parser.add_argument(
        "--prune_quant", action="store_true", help="the model was pruned; its file says so as well"
    )
    return parser


def make_inference(
    arguments: argparse.Namespace,
    technique: Any,
    product: Product,
    *,
    suffixes: Sequence[str] = ("",),
) -> None:
    """Puts quantized values in the place of a trained model's weights.

    Args:
        arguments: Flags of `inference_parser`.
        technique: The quantizer that the command line describes.
        product: What to make.
        suffixes: Of the trained model's file, behind the model's name; the first that is there
            counts.

    Raises:
        DataError: There is no such model, or it was quantized otherwise.
    """
    kind = name_of(arguments.model_type)
    source = _trained([f"{kind}{suffix}.pth" for suffix in suffixes])
    checkpoint = Checkpoint.load(source, MODEL_TYPES.index(kind))
    checkpoint.check_quantizer(technique)
    model = _for_inference(checkpoint.quantized_model(), technique, product)
    result = attrs.evolve(checkpoint, path=SAVED / product.file, state_dict=model.state_dict())
    result.save()
    print(f"{result.path} is written, from {source}")


def measure_inference(arguments: argparse.Namespace, product: Product) -> None:
    """Measures what `make_inference` wrote.

    Raises:
        DataError: It is not there, or does not fit.
    """
    path = SAVED / product.file
    checkpoint = Checkpoint.load(path)
    technique = checkpoint.technique()
    prepared = technique.prepare(checkpoint.skeleton(), ())
    model = _for_inference(prepared, technique, product)
    fill(model, checkpoint.state_dict, path)
    session = Session.open(arguments)
    found = session.accuracy(session.placed(model))
    before = "" if checkpoint.acc is None else f" (in training {checkpoint.acc:.2%})"
    session.say(f"accuracy {found:.2%}{before}")


def measuring_parser(description: str) -> Parser:
    """The flags of the commands that measure."""
    parser = Parser(description)
    add_device_and_data(parser)
    return parser


def _for_inference(model: nn.Module, technique: Any, product: Product) -> nn.Module:
    if product.fused:
        signs = getattr(technique, "activations", None) == "binary"
        for fuser in ("binary_bn", "bn") if signs else ("bn",):
            model = registry.create("fuser", fuser).fuse(model, (torch.zeros(2, 3, 32, 32),))
    store_quantized_weights(model)
    return model.eval()


def _trained(names: Sequence[str]) -> Path:
    """The first of these files, in the folder above or in this one."""
    folders = (Path("..") / SAVED, SAVED)
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise DataError(
        f"There is no {' or '.join(names)} in {folders[0]} or {folders[1]}; main.py writes it."
    )
