"""Which convolutions run on bits: those that gain by it and whose sums come out exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import onnx
import openvino
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from micronet.deployment.onnx_graph import Graph
from micronet.errors import DeployError, listed
from micronet.quantization.qdq import OPSET
from micronet.techniques import Signature
from micronet_openvino.binary import BinaryLayer, find, lower
from micronet_openvino.engine import OpenVinoRunner, compiled, read

_TOLERANCE = 0.1
"""Of the outputs' spread: signs flip where sums are rounded in another order, all where wrong."""


def network_of(
    exported: onnx.ModelProto, signature: Signature, example: Mapping[str, NDArray[Any]]
) -> tuple[openvino.Model, tuple[str, ...]]:
    """A model for the engine, and sentences on the layers that could run on bits and do not.

    Args:
        exported: As `micronet.deployment.export` writes it.
        signature: Of the graph.
        example: Inputs for which a network on bits must give what one on integers gives.
    """
    chosen: list[BinaryLayer] = []
    rejected: defaultdict[str, list[str]] = defaultdict(list)
    for layer in find(Graph(exported)):
        reason = layer.why_not()
        if reason is None and not is_exact(layer):
            reason = f"openvino {openvino.__version__} gets its sums wrong on this machine"
        if reason is None:
            chosen.append(layer)
        else:
            rejected[reason].append(layer.name)
    network = read(exported)
    if chosen:
        rewritten = onnx.ModelProto()
        rewritten.CopyFrom(exported)
        lower(rewritten, chosen)
        on_bits = read(rewritten)
        if _same(on_bits, network, signature, example):
            network = on_bits
        else:
            reason = "the network on bits computes something else"
            rejected[reason] = [layer.name for layer in chosen]
    return network, tuple(
        f"{listed(names)} {'runs' if len(names) == 1 else 'run'} on integers, not on bits: "
        f"{reason}."
        for reason, names in rejected.items()
    )


def is_exact(layer: BinaryLayer) -> bool:
    """Whether the engine's sums for random inputs are the true ones, with this layer's weights."""
    kernel, strides = layer.codes.shape[2:], layer.attribute("strides")
    pads, dilations = layer.attribute("pads"), layer.attribute("dilations")
    size = [
        dilation * (extent - 1) + 1 + outputs * stride
        for dilation, extent, outputs, stride in zip(
            dilations, kernel, (2, 3), strides, strict=True
        )
    ]
    channels = layer.codes.shape[1] * layer.attribute("group")
    generator = np.random.default_rng(0)
    x = generator.choice(np.array([-1, 0, 1], np.float32), (2, channels, *size))
    signs = np.where(x >= 0, np.float32(1), np.float32(-1))
    try:
        request = compiled(read(_alone(layer, (1, *x.shape[1:]))), {})
        found = np.concatenate([request.infer([image[None]])[0] for image in x])
    except (DeployError, RuntimeError):
        return False
    top, left, bottom, right = pads
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.from_numpy(signs), (left, right, top, bottom)),
        torch.from_numpy(layer.codes.astype(np.float32)),
        stride=strides,
        dilation=dilations,
        groups=layer.attribute("group"),
    )
    return np.array_equal(found, expected.numpy())


def _alone(layer: BinaryLayer, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A model of a layer on bits, without its scale and its bias."""
    node = onnx.NodeProto()
    node.CopyFrom(layer.node)
    del node.input[2:]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dimensions)
        for name, dimensions in (("x", shape), (node.output[0], None))
    ]
    graph = helper.make_graph([node], "layer", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    scale = np.ones_like(layer.scale)
    lower(model, [attrs.evolve(layer, node=node, source="x", moves=[], scale=scale)])
    return model


def _same(
    one: openvino.Model,
    other: openvino.Model,
    signature: Signature,
    example: Mapping[str, NDArray[Any]],
) -> bool:
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    try:
        found = OpenVinoRunner(signature, one, options).run(example)
    except (DeployError, RuntimeError):
        return False
    expected = OpenVinoRunner(signature, other, options).run(example)
    return all(map(_near, found, expected))


def _near(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    if found.shape != expected.shape:
        return False
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    spread = float(np.square(expected - expected.mean()).mean())
    return float(np.square(found - expected).mean()) <= _TOLERANCE**2 * spread
