"""A model whose forward is a graph, and which is otherwise as its author made it."""

from __future__ import annotations

import copy
import types
import warnings
from typing import Any

from torch import fx, nn
from torch.fx.graph_module import _format_import_block, _forward_from_src
from torch.package.importer import sys_importer

from micronet.graph.specialized import TracingError, require

_OF_GRAPHS = (
    "_graph", "_code", "_lineno_map", "_prologue_start", "_tracer_cls", "_tracer_extras", "meta",
    "_replace_hooks", "_create_node_hooks", "_erase_node_hooks", "_deepcopy_hooks", "shape_env",
)  # fmt: skip
"""What a graph module keeps beside what its author's class does."""


class Followed(fx.GraphModule):
    """Mixin of the author's class: its attributes and methods stay, and its forward is a graph."""

    def __setattr__(self, name: str, value: Any) -> None:
        before = vars(self).get(name, value)
        plain = isinstance(value, (bool, int, float, str)) and isinstance(before, type(value))
        if plain and value != before and not name.startswith("_") and name != "training":
            warnings.warn(
                f"The forward of {type(self).__name__} was followed with {name!r} at {before!r}; "
                f"where it reads that, it goes on with the old value. Set it before preparing it.",
                stacklevel=2,
            )
        super().__setattr__(name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Followed:
        author = _author(self)
        copied = author.__new__(author)
        memo[id(self)] = copied
        own = {name: value for name, value in vars(self).items() if name not in _OF_GRAPHS}
        vars(copied).update(copy.deepcopy(own, memo))
        followed = give_graph(copied, copy.deepcopy(self.graph))
        followed.meta = dict(self.meta)
        return followed

    def __reduce__(self) -> tuple[Any, ...]:
        code = self.recompile()
        imports = _format_import_block(code.globals, sys_importer)
        own = {name: value for name, value in vars(self).items() if name not in _OF_GRAPHS}
        return _restored, (_author(self), own, imports + self.code)


def give_graph(model: nn.Module, graph: fx.Graph) -> Followed:
    """Makes a graph the forward of a model, in place; the model's class becomes a subclass of it.

    Raises:
        TracingError: The model has something else under a name that graph modules need.
    """
    taken = [name for name in (*_OF_GRAPHS, "graph", "code") if hasattr(model, name)]
    if taken and not isinstance(model, Followed):
        raise TracingError(f"{type(model).__name__} has an attribute {taken[0]!r} of its own")
    author = _author(model)
    kind = types.new_class(author.__name__, (Followed, author))
    kind.__module__, kind.__qualname__ = author.__module__, author.__qualname__
    try:
        model.__class__ = kind
    except TypeError as error:
        raise TracingError(f"the class of {author.__name__} can't be extended: {error}") from error
    vars(model).update(
        _tracer_cls=None,
        _tracer_extras={},
        meta={},
        _replace_hooks=[],
        _create_node_hooks=[],
        _erase_node_hooks=[],
        _deepcopy_hooks=[],
        shape_env=None,
    )
    followed: Any = model
    followed.graph = graph
    result: Followed = followed
    return result


def as_plain_module(model: nn.Module) -> nn.Module:
    """Takes a model's graph away, in place, and leaves its code; other models stay as they are.

    torch makes graph modules' code anew as it exports them, whatever their forward is by then.
    """
    if isinstance(model, Followed):
        forward = types.MethodType(type(model).forward, model)
        plain: nn.Module = model
        plain.__class__ = _author(model)
        for name in _OF_GRAPHS:
            vars(model).pop(name, None)
        vars(model)["forward"] = forward
    return model


def shallow_copy(model: nn.Module) -> nn.Module:
    """The same layers and tensors in modules of their own, so that layers can be replaced."""
    copies: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) in copies or (module is not model and not any(module.children())):
            return copies.setdefault(id(module), module)
        author = _author(module)
        shallow = copies[id(module)] = author.__new__(author)
        own = {name: value for name, value in vars(module).items() if name not in _OF_GRAPHS}
        vars(shallow).update(own)
        for table in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
            vars(shallow)[table] = copy.copy(vars(module)[table])
        vars(shallow)["_modules"] = {
            name: child if child is None else copied(child)
            for name, child in vars(module)["_modules"].items()
        }
        if isinstance(module, Followed):
            give_graph(shallow, copy.deepcopy(module.graph))
        return shallow

    return copied(model)


def _author(model: nn.Module) -> type[nn.Module]:
    """The class that a model had before it was given a graph."""
    if not isinstance(model, Followed):
        return type(model)
    kinds: list[Any] = [
        kind for kind in type(model).__mro__ if not issubclass(kind, fx.GraphModule)
    ]
    author: type[nn.Module] = kinds[0]
    return author


class _Rereader(fx.Tracer):
    """Makes a graph of a graph's own code."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(require,))

    def is_leaf_module(self, _module: nn.Module, _name: str) -> bool:
        return True


def _restored(author: type[nn.Module], own: dict[str, Any], code: str) -> nn.Module:
    reader: Any = types.new_class(author.__name__, (author,))
    reader.forward = _forward_from_src(code, {})
    model: nn.Module = reader.__new__(reader)
    vars(model).update(own)
    graph = _Rereader().trace(model)
    model.__class__ = author
    return give_graph(model, graph)
