"""What the parts of a model get that has no graph of its own, such as a detector's backbone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from micronet.graph import graphs
from micronet.graph.batches import batch_size, first_rows, joined
from micronet.graph.modes import evaluating
from micronet.quantization import in_mode, quantized_layers

Call = tuple[Any, ...]


def calls_of_parts(
    model: nn.Module, calls: Sequence[Call], images: int
) -> dict[str, tuple[nn.Module, Call]]:
    """Each part that can run by itself, by name in the order of work, and one batch for it.

    Parts are the graphs of a model and its quantized layers outside of them; a model that is one
    graph is its only part. A part gets what it gets in the float model: its batch need not be the
    model's, whose input may be a list of images of different sizes, and which may choose among them
    by what it finds.

    Args:
        model: Prepared.
        calls: Arguments of its forward.
        images: The rows of the batch, evenly taken from all calls, at most.
    """
    share = -(-images // len(calls))
    seen = {"": [first_rows(call, share) for call in calls]}
    names = [name for name, _ in graphs(model)]
    if "" not in names:
        names += [
            name
            for name, _ in quantized_layers(model)
            if not any(name.startswith(f"{part}.") for part in names)
        ]
        seen = _calls_in_float(model, calls, names, share)
    return {
        name: (model.get_submodule(name), first_rows(joined(_alike(calls)), images))
        for name, calls in seen.items()
    }


def _calls_in_float(
    model: nn.Module, calls: Sequence[Call], names: Sequence[str], share: int
) -> dict[str, list[Call]]:
    seen: dict[str, list[Call]] = {}
    met: set[str] = set()

    def note(name: str, _: nn.Module, args: Call) -> None:
        if name not in met and batch_size(args):
            met.add(name)
            rows = first_rows(args, share)
            seen.setdefault(name, []).append(tree_map_only(Tensor, Tensor.clone, rows))

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in names
    ]
    try:
        with evaluating(model), in_mode("off", model):
            for call in calls:
                met.clear()
                model(*call)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _alike(calls: Sequence[Call]) -> list[Call]:
    """The calls with tensors of the first one's shapes, the batch aside."""
    return [call for call in calls if _shapes(call) == _shapes(calls[0])]


def _shapes(call: Call) -> list[Any]:
    return [v.shape[1:] if isinstance(v, Tensor) else None for v in tree_leaves(call)]
