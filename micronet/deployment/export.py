"""From torch to ONNX, quantization written out as QuantizeLinear / DequantizeLinear nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from micronet.deployment.flat_model import exporting, flatten
from micronet.deployment.onnx_graph import write_signature
from micronet.errors import DeployError
from micronet.quantization.convert import StoredWeight
from micronet.quantization.qdq import OPSET

_STACK_TRACE = "pkg.torch.onnx.stack_trace"


def export_onnx(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    path: Path | str,
    *,
    dynamic: Sequence[str] = ("batch",),
) -> None:
    """Writes what `export_graph` gives as one ONNX file."""
    onnx.save(export_graph(model, example_inputs, dynamic=dynamic), path)


def export_graph(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    dynamic: Sequence[str] = ("batch",),
) -> onnx.ModelProto:
    """A float, prepared or converted model as an ONNX graph of opset 21.

    Quantized weights become integer constants behind a DequantizeLinear; each quantized
    activation becomes one QuantizeLinear and one DequantizeLinear. Inputs and outputs are those of
    the signature, which `onnx_graph.read_signature` reads back from the graph.

    Args:
        model: In any mode, on any device; what it gives in eval mode is exported.
        example_inputs: What its forward takes: a tensor, or a dict, list or tuple of tensors, for
            each argument; those with defaults may be left out.
        dynamic: Which dimensions may differ at run time, "batch", "height", "width"; see
            `micronet.deployment.flat_model`.

    Raises:
        OptionError: Another dimension than those.
        DeployError: torch.export or the ONNX exporter can't take the model.
    """
    flat = flatten(model, example_inputs, dynamic=dynamic)
    for module in flat.module.modules():
        if isinstance(module, StoredWeight):
            module.store(module.tensor.with_integer_zero_point())
    with exporting(model, example_inputs, flat.hint), flat.in_exportable_form():
        exported = torch.onnx.export(
            flat.module,
            flat.example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=flat.dynamic_shapes,
            verbose=False,
        )
        assert exported is not None
        assert exported.exported_program is not None
        graph = exported.model_proto
    write_signature(graph, flat.signature(exported.exported_program))
    _refuse_bfloat16(graph, model)
    functions = (node for function in graph.functions for node in function.node)
    # Each notes lines of code, with this machine's paths.
    for node in (*graph.graph.node, *functions):
        kept = [entry for entry in node.metadata_props if entry.key != _STACK_TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return graph


def _refuse_bfloat16(graph: onnx.ModelProto, model: nn.Module) -> None:
    casts = (
        attribute.i
        for node in graph.graph.node
        for attribute in node.attribute
        if node.op_type == "Cast" and attribute.name == "to"
    )
    types = {tensor.data_type for tensor in graph.graph.initializer}
    if onnx.TensorProto.BFLOAT16 in (*casts, *types):
        raise DeployError(
            f"{type(model).__name__} computes in bfloat16, as under autocast, which engines don't; "
            f"export it without."
        )
