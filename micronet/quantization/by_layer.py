"""Single layers of a prepared model left in float, or quantized as another quantizer does it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import fx, nn

from micronet.errors import QuantizationError, nearest
from micronet.graph import graphs
from micronet.quantization.fake_quantizer import FakeQuantizer
from micronet.quantization.layers import QUANTIZED, QuantizedLayer, quantized_layers
from micronet.quantization.placement import moves_values, reads_integers


def choose_by_layer(prepared: nn.Module, others: Mapping[str, nn.Module | None]) -> None:
    """Gives layers of a prepared model what they have in another, in place.

    An activation that several layers read follows their choice where they agree on one, and stays
    as it is where they do not.

    Args:
        prepared: By a quantizer.
        others: For names or patterns of layers, the same model prepared by another quantizer, or
            `None` to leave them in float; the first pattern that fits a layer counts. Patterns
            with the same model are one choice.

    Raises:
        QuantizationError: A pattern fits no quantized layer, or none is left.
    """
    layers = dict(quantized_layers(prepared))
    chosen = _chosen(list(layers), list(others), [name for name, _ in prepared.named_modules()])
    choices = {each: next(p for p in others if others[p] is others[each]) for each in others}
    pattern_of = {id(layers[name]): choices[pattern] for name, pattern in chosen.items()}
    for part_name, part in graphs(prepared):
        for node in _activations(part):
            pattern = _agreed(node, pattern_of)
            if pattern is None:
                continue
            other = others[pattern]
            if other is None:
                _remove(node)
            else:
                place = f"{part_name}.{node.target}".lstrip(".")
                part.set_submodule(str(node.target), other.get_submodule(place))
    for name, pattern in chosen.items():
        other = others[pattern]
        twin = None if other is None else other.get_submodule(name)
        if isinstance(twin, QuantizedLayer):
            layers[name].weight_quantizer = twin.weight_quantizer
            layers[name].input_quantizer = twin.input_quantizer
        else:
            _back_to_float(layers[name])
    if not any(True for _ in quantized_layers(prepared)):
        raise QuantizationError("layers leaves every layer in float; leave quantize out.")


def _chosen(
    names: Sequence[str], patterns: Sequence[str], modules: Iterable[str]
) -> dict[str, str]:
    """The pattern of each quantized layer that one fits."""
    for pattern in patterns:
        if fnmatch.filter(names, pattern):
            continue
        inner = any(name.startswith(f"{pattern}.") for name in names)
        hint = f" Did you mean '{pattern}.*'?" if inner else nearest(pattern, names)
        there = " It stays in float as it is." if pattern in modules and not inner else hint
        raise QuantizationError(
            f"layers names none that this quantizer quantizes: {pattern!r}.{there}"
        )
    return {
        name: fitting[0]
        for name in names
        if (fitting := [each for each in patterns if fnmatch.fnmatchcase(name, each)])
    }


def _activations(part: fx.GraphModule) -> list[fx.Node]:
    """The calls of fake quantizers in a graph."""
    calls = [node for node in part.graph.nodes if node.op == "call_module"]
    return [node for node in calls if isinstance(part.get_submodule(node.target), FakeQuantizer)]


def _agreed(node: fx.Node, pattern_of: Mapping[int, str]) -> str | None:
    """The choice of all that read a quantized activation as integers, if they agree on one."""
    part = node.graph.owning_module
    assert part is not None
    found = {
        pattern_of.get(id(part.get_submodule(str(reader.target))))
        if reader.op == "call_module"
        else None
        for reader in _readers(node)
        if reads_integers(reader)
    }
    return found.pop() if len(found) == 1 else None


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    """What reads a node's values, also behind what only moves them around."""
    for user in node.users:
        if moves_values(user):
            yield from _readers(user)
        else:
            yield user


def _remove(node: fx.Node) -> None:
    part = node.graph.owning_module
    assert part is not None
    node.replace_all_uses_with(node.all_input_nodes[0])
    part.graph.erase_node(node)
    part.delete_submodule(str(node.target))
    part.graph.lint()
    part.recompile()


def _back_to_float(layer: QuantizedLayer) -> None:
    """Turns a quantized layer into torch's own again, in place."""
    kinds = {quantized: kind for kind, quantized in QUANTIZED.items()}
    del layer.weight_quantizer, layer.input_quantizer
    layer.__class__ = kinds[type(layer)]  # type: ignore[assignment]
