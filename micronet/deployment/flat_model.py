"""A model as a function of a row of tensors, and its signature.

Exporters and engines know tensors with names; models take and give them in tuples, dicts and
classes of their own. Here one becomes the other, so that no exporter has to know any structure.

Which dimensions are free: "batch" is dimension 0 of the first input that has dimensions, and of
every other input where the example has the same size there; "height" and "width" are the last two
of each input with four dimensions. The first input that has one must let it be free, or the model
is refused; for others it is free if the model lets it be, and if it is not 1, which may stand for
any height or width. Dimensions that the model needs to be equal share a name; others get names of
their own, as in "height_1".
"""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from typing import Any

import attrs
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from micronet import structure
from micronet.deployment.adaptive_pooling import any_size
from micronet.deployment.attention import in_four_dimensions
from micronet.errors import DeployError, MicronetError, OptionError, listed, nearest
from micronet.graph import graphs, trace_parts
from micronet.graph.example_inputs import check_example_inputs
from micronet.graph.followed import as_plain_module
from micronet.quantization.convert import convert
from micronet.structure import Nest
from micronet.techniques import Signature, TensorSpec
from micronet.techniques.signature import BATCH

INPUT, OUTPUT = "input", "output"
"""Names of a single input and of a single output."""

_SIZES = {"height": 2, "width": 3}
_DIMENSIONS = (BATCH, *_SIZES)
_IMAGES = 4
"""Dimensions of images."""

_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
_SYMBOL = re.compile(r"[A-Za-z_]\w*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@attrs.frozen
class FlatModel:
    """A model that takes and gives tensors, one after the other.

    Args:
        module: A copy of the model in its inference form, with such a forward.
        example: The tensors of the example. A batch of one has become one of two, as a size of 1
            would be taken for a constant.
        inputs: The arguments by their names, with the tensors of the user's example.
        outputs: What the model gives for it.
        free: For each input the names of the dimensions that are to be free, by their place.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: Nest
    outputs: Any
    free: tuple[dict[int, str], ...]

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """As `torch.export` wants it."""
        first: dict[str, int] = {}
        for number, free in enumerate(self.free):
            for name in free.values():
                first.setdefault(name, number)
        return (
            tuple(
                {
                    axis: Dim.DYNAMIC if first[name] == number else Dim.AUTO
                    for axis, name in free.items()
                }
                for number, free in enumerate(self.free)
            ),
        )

    def signature(self, program: ExportedProgram) -> Signature:
        """The signature, by the shapes that `torch.export` found for the module.

        Raises:
            DeployError: A batch of one does not tell which inputs have a batch.
        """
        shapes = iter(_shapes(program))
        named = iter(_names(self.inputs, self.outputs))
        symbols = _Symbols()
        inputs = []
        for tensor, free in zip(structure.leaves(self.inputs), self.free, strict=True):
            name = next(named)
            shape = [symbols.named(d, free.get(i)) for i, d in enumerate(next(shapes))]
            _refuse_ambiguous(name, tensor, shape)
            inputs.append(_spec(name, tensor, shape))
        outputs = []
        for tensor in structure.leaves(self.outputs):
            name = next(named)
            shape = [symbols.named(d, f"{name}_{i}") for i, d in enumerate(next(shapes))]
            outputs.append(_spec(name, tensor, shape))
        return Signature(
            structure.with_leaves(self.inputs, iter(inputs)),
            structure.with_leaves(self.outputs, iter(outputs)),
        )

    @property
    def hint(self) -> str:
        """What to hear where an export fails: which inputs were taken for a batch of one."""
        names = _names(self.inputs, self.outputs)
        pairs = zip(names, structure.leaves(self.inputs), self.free, strict=False)
        single = [name for name, tensor, free in pairs if 0 in free and len(tensor) == 1]
        if len(single) < 2:  # noqa: PLR2004 (the first one is the batch)
            return ""
        return (
            f" {listed(map(repr, single))} were taken for batches of one image; if some are none, "
            f"export with a batch of two or more."
        )

    @contextmanager
    def in_exportable_form(self) -> Iterator[None]:
        """A context to export it in: functions of torch take the form that the exporter knows."""
        sizes_differ = set(_SIZES) & set().union(*map(_values, self.free))
        with in_four_dimensions(), any_size() if sizes_differ else nullcontext():
            yield


def flatten(
    model: nn.Module, example_inputs: tuple[Any, ...], *, dynamic: Sequence[str] = (BATCH,)
) -> FlatModel:
    """A float, prepared or converted model as a function of tensors.

    Args:
        model: Stays as it is.
        example_inputs: What its forward takes: tensors, and dicts, lists and tuples of them.
        dynamic: Dimensions that may differ at run time: "batch", "height", "width".

    Raises:
        OptionError: Another dimension than those.
        DeployError: The model fails on the example, or gives something else than tensors.
    """
    check_example_inputs(example_inputs, required=True)
    for name in dynamic:
        if name not in _DIMENSIONS:
            raise OptionError(
                f"dynamic has no dimension {name!r}.{nearest(name, _DIMENSIONS)} "
                f"Allowed: {listed(_DIMENSIONS)}.",
                "dynamic",
            )
    for name, parameter in model.named_parameters():
        if parameter.dtype in (torch.float64, torch.bfloat16):
            kind = str(parameter.dtype).removeprefix("torch.")
            raise DeployError(
                f"{name!r} is {kind}, which engines don't compute in; export model.float()."
            )
    # With gradients, attention takes another way in one of torch.export's passes than in the next.
    module = as_plain_module(convert(model).cpu().requires_grad_(requires_grad=False))
    names = _parameters(module, len(example_inputs))
    inputs = Nest("tuple", names, map(structure.nest, example_inputs))
    tensors = [tensor.detach().cpu() for tensor in structure.leaves(inputs)]
    inputs = structure.with_leaves(inputs, iter(tensors))
    with exporting(model, example_inputs), torch.no_grad():
        outputs = structure.nest(module(*structure.build(inputs)))
    _check_outputs(model, outputs)
    _give_flat_forward(module, inputs, single=isinstance(outputs, Tensor))
    free = _free(tensors, dynamic)
    example = tuple(map(_at_least_two, tensors, free))
    return FlatModel(module, example, inputs, outputs, free)


def signature_of(
    model: nn.Module, example_inputs: tuple[Any, ...], *, dynamic: Sequence[str] = (BATCH,)
) -> Signature:
    """A model's signature, for backends that write something else than ONNX.

    Raises:
        OptionError: As `flatten`.
        DeployError: As `flatten`; or torch.export can't take the model.
    """
    flat = flatten(model, example_inputs, dynamic=dynamic)
    with exporting(model, example_inputs, flat.hint), flat.in_exportable_form():
        program = torch.export.export(
            flat.module, flat.example, dynamic_shapes=flat.dynamic_shapes, strict=False
        )
    return flat.signature(program)


def example_arrays(
    signature: Signature, example_inputs: tuple[Any, ...], *, images: int
) -> dict[str, NDArray[Any]]:
    """The example that a model was exported with as its engine takes it, the first images of it."""
    tensors = structure.leaves(structure.nest(example_inputs))
    return {
        spec.name: (tensor[:images] if spec.has_batch else tensor).detach().cpu().numpy()
        for spec, tensor in zip(signature.input_specs, tensors, strict=True)
    }


@contextmanager
def exporting(model: nn.Module, example_inputs: tuple[Any, ...], hint: str = "") -> Iterator[None]:
    """Says in one sentence why a model can't be exported, and keeps the exporter's own reports.

    Args:
        model: It.
        example_inputs: What its forward takes.
        hint: Another sentence, on what may be the cause.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # the exporter passes on whatever the model's code raises
        reason = _root(error)
        if isinstance(reason, MicronetError):
            raise reason from error
        lines = _COLOURS.sub("", str(reason)).strip().splitlines() or [type(reason).__name__]
        told = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        told = told.partition(" (unhinted:")[0].rstrip(".")
        hint += _hint_at_parts(model, example_inputs)
        raise DeployError(f"{type(model).__name__} can't be exported: {told}.{hint}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _hint_at_parts(model: nn.Module, example_inputs: tuple[Any, ...]) -> str:
    """Which submodules of a model that can't be exported may be, as a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        followed, _ = trace_parts(model, example_inputs)
    parts = [name for name, _ in graphs(followed)]
    if not parts or "" in parts:
        return ""
    return (
        f" Export a part that can be followed, as in model.{parts[0]}, with what it gets as "
        f"example inputs, and run the rest in Python: {listed(map(repr, parts))}."
    )


def _root(error: BaseException) -> BaseException:
    """The error that the exporter wrapped."""
    while error.__cause__ is not None and not isinstance(error, MicronetError):
        error = error.__cause__
    return error


def _parameters(module: nn.Module, count: int) -> list[str]:
    """The names that a model's forward has for its first arguments."""
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(count - len(names))]
        elif parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
    names += [f"{INPUT}_{i}" for i in range(len(names), count)]
    return names[:count]


def _check_outputs(model: nn.Module, outputs: Any) -> None:
    leaves = list(structure.leaves(outputs))
    if not leaves:
        raise DeployError(f"{type(model).__name__} can't be exported: it gives no tensor.")
    for name, leaf in zip(structure.names(outputs, OUTPUT), leaves, strict=True):
        if not isinstance(leaf, Tensor):
            raise DeployError(
                f"{type(model).__name__} can't be exported: its output {name!r} is "
                f"{structure.described(leaf)}, where engines give tensors only."
            )


def _give_flat_forward(module: nn.Module, inputs: Nest, *, single: bool) -> None:
    """Replaces a module's forward; the names of its layers stay, as a wrapper's would not."""
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 (torch has no other way)
        raise DeployError(
            f"{type(module).__name__} can't be exported: it has forward hooks, which would see "
            f"other inputs; remove them first."
        )
    forward = module.forward

    def flat(*tensors: Tensor) -> Any:
        outputs = forward(*structure.build(structure.with_leaves(inputs, iter(tensors))))
        return outputs if single else tuple(structure.leaves(structure.nest(outputs)))

    module.forward = flat


def _free(tensors: Sequence[Tensor], dynamic: Sequence[str]) -> tuple[dict[int, str], ...]:
    """For each input the names of the dimensions that are to be free."""
    batch = next((len(tensor) for tensor in tensors if tensor.dim()), None)
    sizes = {axis: name for name, axis in _SIZES.items() if name in dynamic}
    free: list[dict[int, str]] = []
    for tensor in tensors:
        places = {}
        if BATCH in dynamic and tensor.dim() and len(tensor) == batch:
            places[0] = BATCH
        if tensor.dim() == _IMAGES:
            first = not any(set(sizes) & set(others) for others in free)
            places |= {i: name for i, name in sizes.items() if first or tensor.shape[i] > 1}
        free.append(places)
    return tuple(free)


def _at_least_two(tensor: Tensor, free: dict[int, str]) -> Tensor:
    if free.get(0) != BATCH or len(tensor) != 1:
        return tensor
    return tensor.expand(2, *tensor.shape[1:]).contiguous()


def _shapes(program: ExportedProgram) -> list[tuple[Any, ...]]:
    """Shapes of a program's inputs, then of its outputs, as numbers and symbols."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    used = (*signature.user_inputs, *signature.user_outputs)
    return [tuple(values[str(name)].shape) for name in used]


class _Symbols:
    """Names for the symbols that stand for sizes in a program."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def named(self, size: Any, wanted: str | None) -> int | str:
        """A size, or a name of it.

        Args:
            size: A number, a symbol, or an expression of symbols.
            wanted: A new symbol's name; numbered if another symbol has it.
        """
        if isinstance(size, int):
            return size
        text = str(size)
        for symbol in _SYMBOL.findall(text):
            if symbol not in self._names and wanted is not None:
                taken, number, name = self._names.values(), 0, wanted
                while name in taken:
                    number += 1
                    name = f"{wanted}_{number}"
                self._names[symbol] = name
        return _SYMBOL.sub(lambda match: self._names.get(match[0], match[0]), text)


def _refuse_ambiguous(name: str, tensor: Tensor, shape: Sequence[int | str]) -> None:
    """An input of one row that was taken for a batch of one, and whose rows the model fixes."""
    if any(
        isinstance(size, int) and size != was for size, was in zip(shape, tensor.shape, strict=True)
    ):
        raise DeployError(
            f"Input {name!r} has 1 where the others have a batch of 1, but the model can't take "
            f"another number there; export with a batch of two or more to tell them apart."
        )


def _spec(name: str, tensor: Tensor, shape: Sequence[int | str]) -> TensorSpec:
    if tensor.dtype is torch.bfloat16:
        raise DeployError(f"{name!r} is bfloat16, which numpy does not have; use float32 there.")
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), shape, tensor.shape)


def _names(inputs: Nest, outputs: Any) -> list[str]:
    """Names of all inputs, then of all outputs; no two are the same."""
    single = len(inputs.parts) == 1 and not isinstance(inputs.parts[0], Nest)
    wanted = [INPUT] if single else structure.names(inputs, INPUT)
    names: list[str] = []
    for name in wanted:
        names.append(_unlike(names, name))
    for name in structure.names(outputs, OUTPUT):
        names.append(_unlike(names, name if name and name not in names else f"{OUTPUT}.{name}"))
    return names


def _unlike(names: Sequence[str], wanted: str) -> str:
    name, number = wanted, 0
    while name in names:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _values(free: dict[int, str]) -> set[str]:
    return set(free.values())
