"""From torch to ONNX, quantization written out as QuantizeLinear / DequantizeLinear nodes."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from micronet.deployment.adaptive_pooling import AnySize
from micronet.errors import DeployError, MicronetError, OptionError, listed, nearest
from micronet.graph.example_inputs import check_example_inputs
from micronet.quantization.convert import StoredWeight, convert
from micronet.quantization.qdq import OPSET

INPUT, OUTPUT = "input", "output"
"""Names of the exported graph's input and output."""

_DIMENSIONS = {"batch": 0, "height": 2, "width": 3}
_STACK_TRACE = "pkg.torch.onnx.stack_trace"


def export_onnx(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    path: Path,
    *,
    dynamic: Sequence[str] = ("batch",),
) -> None:
    """Writes what `export_graph` gives as one ONNX file."""
    onnx.save(export_graph(model, example_inputs, dynamic=dynamic), path)


def export_graph(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    dynamic: Sequence[str] = ("batch",),
) -> onnx.ModelProto:
    """A float, prepared or converted model as an ONNX graph of opset 21.

    Quantized weights become integer constants behind a DequantizeLinear; each quantized
    activation becomes one QuantizeLinear and one DequantizeLinear.

    Args:
        model: Takes one tensor, float32 [batch, channels, height, width], and gives one.
        example_inputs: That tensor, on any device.
        dynamic: Which of its dimensions may differ at run time: "batch", "height", "width".

    Raises:
        OptionError: Another dimension than those.
        DeployError: torch.export or the ONNX exporter can't take the model.
    """
    check_example_inputs(example_inputs)
    for name in dynamic:
        if name not in _DIMENSIONS:
            raise OptionError(
                f"dynamic has no dimension {name!r}.{nearest(name, _DIMENSIONS)} "
                f"Allowed: {listed(_DIMENSIONS)}.",
                "dynamic",
            )
    shapes = {_DIMENSIONS[name]: torch.export.Dim.DYNAMIC for name in dynamic}
    exported = convert(model).cpu()
    for module in exported.modules():
        if isinstance(module, StoredWeight):
            module.store(module.tensor.with_integer_zero_point())
    # A batch of one would be taken for a constant.
    example = example_inputs[0].cpu()
    if "batch" in dynamic and len(example) == 1:
        example = example.expand(2, *example.shape[1:]).contiguous()
    try:
        with _quiet(), AnySize() if {"height", "width"} & set(dynamic) else nullcontext():
            program = torch.onnx.export(
                exported,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=(shapes,),
                verbose=False,
            )
            assert program is not None
            graph = program.model_proto
    except Exception as error:  # the exporter passes on whatever the model's code raises
        reason = _root(error)
        if isinstance(reason, MicronetError):
            raise reason from error
        lines = _COLOURS.sub("", str(reason)).strip().splitlines()
        raise DeployError(
            f"{type(model).__name__} can't be exported to ONNX: "
            f"{lines[0] if lines else type(reason).__name__}"
        ) from error
    functions = (node for function in graph.functions for node in function.node)
    # Each notes lines of code, with this machine's paths.
    for node in (*graph.graph.node, *functions):
        kept = [entry for entry in node.metadata_props if entry.key != _STACK_TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return graph


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def _root(error: BaseException) -> BaseException:
    """The error that the exporter wrapped."""
    while error.__cause__ is not None and not isinstance(error, MicronetError):
        error = error.__cause__
    return error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its own progress and its own deprecations; neither is for our user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
