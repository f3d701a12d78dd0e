"""Reductions that OpenVINO's kernel would get wrong, written so that they come out right.

What stands behind a reduction, such as a scale or a FakeQuantize, becomes a part of it. Then

- a maximum or minimum of floats whose result is uint8 starts from 0 or 255, and misses what lies
  beyond them. Here a comparison with minus infinity, which becomes no part of it, is behind it.
- In a tensor of three dimensions the images are taken for the channels, so that in a batch each
  image gets the scale of one channel. Here the tensor has four.
"""

from __future__ import annotations

import numpy as np
import openvino
from openvino import opset13
from openvino.utils import replace_node

_REDUCTIONS = {
    "ReduceL1": opset13.reduce_l1,
    "ReduceL2": opset13.reduce_l2,
    "ReduceMax": opset13.reduce_max,
    "ReduceMean": opset13.reduce_mean,
    "ReduceMin": opset13.reduce_min,
    "ReduceProd": opset13.reduce_prod,
    "ReduceSum": opset13.reduce_sum,
}
_EXTREMES = ("ReduceMax", "ReduceMin")
_THREE = 3
_FOURTH = 2
"""Where a tensor of three dimensions gets one more: beside the last, which is often the longest."""


def keep_reductions(network: openvino.Model) -> None:
    """Rewrites those reductions of a network, in place."""
    for node in network.get_ordered_ops():
        kind = node.get_type_name()
        if kind in _REDUCTIONS and _is_constant(node.input_value(1)):
            flat = node.get_input_partial_shape(0).rank == _THREE and not _is_of_rms_norm(node)
            extreme = kind in _EXTREMES and node.get_element_type().is_real()
            if flat or extreme:
                replace_node(node, _rewritten(node, flat=flat, extreme=extreme))


def _rewritten(node: openvino.Node, *, flat: bool, extreme: bool) -> openvino.Node:
    value, kept = node.input_value(0), node.get_attributes()["keep_dims"]
    axes = node.input_value(1).get_node().get_data()
    if flat:
        value = opset13.unsqueeze(value, [_FOURTH])
        axes = axes % _THREE
        axes = np.union1d(axes + (axes >= _FOURTH), [_FOURTH])
    result = _REDUCTIONS[node.get_type_name()](value, axes, kept)
    if flat and kept:
        result = opset13.squeeze(result, [_FOURTH])
    if extreme:
        result = opset13.maximum(result, opset13.constant(-np.inf, node.get_element_type()))
    return result


def _is_of_rms_norm(node: openvino.Node) -> bool:
    """Whether squares are reduced, and only numbers meet the result before another tensor does.

    The engine has a kernel for the whole, which it would not find with four dimensions.
    """
    if node.input_value(0).get_node().get_type_name() != "Power":
        return False
    others: list[openvino.Output] = []
    while all(_is_constant(other) and np.prod(other.get_shape()) == 1 for other in others):
        readers = node.output(0).get_target_inputs()
        if len(readers) != 1:
            return False
        (reader,) = readers
        node = reader.get_node()
        if node.get_type_name() == "Result":
            return False
        others = [
            each.get_source_output()
            for each in node.inputs()
            if each.get_index() != reader.get_index()
        ]
    return not any(map(_is_constant, others))


def _is_constant(value: openvino.Output) -> bool:
    return bool(value.get_node().get_type_name() == "Constant")
