"""What a deployed model takes and gives: names, types and shapes, in the structure of its code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from micronet import structure
from micronet.errors import DataError, DeployError
from micronet.plain import from_json, structured
from micronet.structure import Nest

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = "batch"
"""Name of the free dimension that counts images."""


def _shape(sizes: Iterable[int | str]) -> tuple[int | str, ...]:
    return tuple(sizes)


def _example(sizes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sizes)


@attrs.frozen
class TensorSpec:
    """A tensor that a model takes or gives.

    Args:
        name: In the engine's file.
        dtype: Its type, by numpy's name.
        shape: A number where a dimension is fixed, a name where it is free: ("batch", 3, 224, 224).
            Dimensions of one name have one size. One of an output may be an expression of those
            of the inputs, as in "height//2".
        example: Its shape in the example that the model was exported with.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] = attrs.field(converter=_shape)
    example: tuple[int, ...] = attrs.field(converter=_example)

    @property
    def free(self) -> dict[int, str]:
        """The free dimensions, by their place."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, str)}

    @property
    def has_batch(self) -> bool:
        """Whether it holds something for each image of a batch of any size."""
        return self.shape[:1] == (BATCH,)

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


_TYPES = {
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
    "float32", "float64",
}  # fmt: skip
_LARGEST = 2**28
"""Numbers in an example, at most."""


def _tree(plain: Any) -> Any:
    """A structure from what JSON keeps of it."""
    if plain is None:
        return None
    if not isinstance(plain, Mapping):
        raise DataError(f"expected a tensor or a container of them, got {plain!r}")
    if "parts" not in plain:
        spec = structured(plain, TensorSpec)
        sizes = [*spec.example, *(size for size in spec.shape if isinstance(size, int))]
        if spec.dtype not in _TYPES or min(sizes, default=0) < 0:
            raise DataError(f"there are no tensors like {spec.name!r}: {spec}")
        if math.prod(spec.example) > _LARGEST or len(spec.example) != len(spec.shape):
            raise DataError(f"no example is like {spec.name!r}: {list(spec.example)}")
        return spec
    nest = structured({**plain, "parts": []}, Nest)
    structure.check(nest)
    parts = structured(plain["parts"], tuple[Any, ...])
    if len(parts) != len(nest.keys):
        raise DataError(f"a {nest.kind} of {len(nest.keys)} has {len(parts)} parts")
    return attrs.evolve(nest, parts=map(_tree, parts))


@attrs.frozen
class Signature:
    """What a model takes and gives.

    Args:
        inputs: A `Nest` of the arguments, by the names that the model's forward has for them.
        outputs: A `TensorSpec`, or a `Nest` of them, as the model gives it.
    """

    inputs: Nest
    outputs: Any

    @classmethod
    def from_plain(cls, plain: Any) -> Signature:
        """From what JSON keeps of it; raises DataError where that is no signature."""
        sides = structured(plain, dict[str, Any])
        if sides.keys() != {"inputs", "outputs"}:
            raise DataError("a signature has inputs and outputs")
        signature = cls(_tree(sides["inputs"]), _tree(sides["outputs"]))
        if not isinstance(signature.inputs, Nest) or not signature.output_specs:
            raise DataError("a signature has arguments, and an output")
        return signature

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        return tuple(structure.leaves(self.inputs))

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        return tuple(structure.leaves(self.outputs))

    @property
    def can_be_cut(self) -> bool:
        """Whether a batch can run in pieces: all outputs hold something for each image."""
        outputs = self.output_specs
        return bool(outputs) and all(spec.has_batch for spec in outputs)

    def arrays(
        self, inputs: Sequence[Any], named: Mapping[str, Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        """The arrays of an engine's call by name, from what the model takes.

        Args:
            inputs: The first arguments of its forward.
            named: Others, by their names.

        Raises:
            DeployError: They are not what the model takes; the message names the first that isn't.
        """
        named = dict(named or {})
        others = [named.pop(str(key)) for key in self.inputs.keys[len(inputs) :] if key in named]
        inputs = [*inputs, *others]
        if named or len(inputs) != len(self.inputs.parts):
            takes = "; ".join(f"{spec.name}: {spec}" for spec in self.input_specs)
            count = len(self.inputs.parts)
            got = f"{len(inputs)}" if not named else f"{min(named)!r} beside them"
            raise DeployError(
                f"The model takes {count} input{'s' * (count != 1)} ({takes}), got {got}."
            )
        given = structure.matching(self.inputs, tuple(inputs), "", _refuse)
        sizes: dict[str, tuple[str, int]] = {}
        pairs = zip(self.input_specs, _values(self.inputs, given), strict=True)
        return {spec.name: _checked(spec, value, sizes) for spec, value in pairs}

    def structured(self, outputs: Sequence[NDArray[Any]]) -> Any:
        """An engine's outputs as the model gives them."""
        return structure.build(structure.with_leaves(self.outputs, iter(outputs)))

    def noise(self, *, batch: int | None = None, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Random inputs of the example's shapes: floats of a normal distribution, integers 0 and 1.

        Args:
            batch: Images, where their number is free.
            seed: Of the random numbers.
        """
        import numpy as np

        generator = np.random.default_rng(seed)
        arrays = {}
        for spec in self.input_specs:
            shape = spec.example
            if batch is not None and spec.free.get(0, "").startswith(BATCH):
                shape = (batch, *shape[1:])
            if np.issubdtype(spec.dtype, np.floating):
                arrays[spec.name] = np.asarray(generator.standard_normal(shape), spec.dtype)
            else:
                arrays[spec.name] = np.asarray(generator.integers(0, 2, shape), spec.dtype)
        return arrays

    def to_json(self) -> str:
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Signature:
        """Raises DataError where it is no signature."""
        return from_json(text, cls)


def _values(tree: Any, given: Any) -> list[Any]:
    """The values that stand where a tree has its leaves; they may be anything."""
    if isinstance(tree, Nest):
        pairs = zip(tree.parts, given.parts, strict=True)
        return [value for part, values in pairs for value in _values(part, values)]
    return [] if tree is None else [given]


def _refuse(name: str, wanted: str, value: Any) -> NoReturn:
    raise DeployError(f"Input {name!r} must be {wanted}, got {structure.described(value)}.")


def _checked(spec: TensorSpec, value: Any, sizes: dict[str, tuple[str, int]]) -> NDArray[Any]:
    import numpy as np

    if not isinstance(value, (np.ndarray, np.generic)):
        _refuse(spec.name, f"a numpy array, {spec}", value)
    array = np.asarray(value, order="C")
    fits = len(array.shape) == len(spec.shape) and all(
        isinstance(allowed, str) or size == allowed
        for size, allowed in zip(array.shape, spec.shape, strict=True)
    )
    if array.dtype.name != spec.dtype or not fits:
        raise DeployError(
            f"Input {spec.name!r} must be {spec}, got {array.dtype} {list(array.shape)}."
        )
    for axis, free in spec.free.items():
        other, size = sizes.setdefault(free, (spec.name, array.shape[axis]))
        if size != array.shape[axis]:
            raise DeployError(
                f"Input {spec.name!r} must be {spec} with {free} {size} as in {other!r}, got "
                f"{array.dtype} {list(array.shape)}."
            )
    return array
