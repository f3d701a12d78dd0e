"""Signed 8-bit activations, written as unsigned ones.

The same real numbers with every code and zero point 128 higher: the form that ONNX Runtime is
fast with on x86. It is also the form that loads at all: given signed ones, onnxruntime 1.32
rewrites them itself and then rejects its own graph wherever a MaxPool or Reshape follows
("output_dtype INT8 does not match y_zero_point type UINT8").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

_SHIFT = 128


def make_activations_unsigned(path: Path) -> None:
    """Rewrites an ONNX file in place."""
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    activations = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    changed = False
    for node in graph.node:
        quantizes = node.op_type == "QuantizeLinear"
        reads_activation = node.op_type == "DequantizeLinear" and node.input[0] in activations
        if not (quantizes or reads_activation):
            continue
        zero_point = constants[node.input[2]]
        if zero_point.data_type != onnx.TensorProto.INT8:
            continue
        name = f"{zero_point.name}_unsigned"
        if name not in constants:
            shifted = numpy_helper.to_array(zero_point).astype(np.int16) + _SHIFT
            constants[name] = numpy_helper.from_array(shifted.astype(np.uint8), name)
            graph.initializer.append(constants[name])
        node.input[2] = name
        changed = True
    if changed:
        used = {name for node in graph.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]  # they name the old types; the engine infers them anew
        onnx.save(model, path)
