"""The shapes that an engine is built for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from micronet.errors import DeployError
from micronet.techniques import TensorSpec

_BATCH, _SIZE = 0, {"height": 2, "width": 3}


def _as_shape(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape)


@attrs.frozen
class Profile:
    """Shapes of an input: the smallest, the one to be fastest at, the largest."""

    smallest: tuple[int, ...] = attrs.field(converter=_as_shape)
    best: tuple[int, ...] = attrs.field(converter=_as_shape)
    largest: tuple[int, ...] = attrs.field(converter=_as_shape)

    @classmethod
    def around(
        cls,
        spec: TensorSpec,
        *,
        best_batch: int,
        max_batch: int,
        min_size: tuple[int, int] | None,
        max_size: tuple[int, int] | None,
    ) -> Profile:
        """A profile for an input; dimensions that are not free are the example's.

        Args:
            spec: The input.
            best_batch: Batch to be fastest at.
            max_batch: Largest batch.
            min_size: Smallest height and width; half of the example's if `None`.
            max_size: Largest height and width; twice the example's if `None`.

        Raises:
            DeployError: The example lies outside the sizes.
        """
        example = spec.example
        smallest, best, largest = list(example), list(example), list(example)
        if _BATCH in spec.free:
            smallest[_BATCH], best[_BATCH], largest[_BATCH] = 1, best_batch, max_batch
        for index, (name, axis) in enumerate(_SIZE.items()):
            if axis not in spec.free:
                continue
            smallest[axis] = min_size[index] if min_size else max(1, example[axis] // 2)
            largest[axis] = max_size[index] if max_size else 2 * example[axis]
            if not smallest[axis] <= example[axis] <= largest[axis]:
                raise DeployError(
                    f"The example's {name} of {example[axis]} lies outside the sizes that the "
                    f"engine is to be built for, {smallest[axis]} to {largest[axis]}."
                )
        return cls(smallest, best, largest)

    @property
    def dynamic(self) -> bool:
        return self.smallest != self.largest

    def why_not(self, spec: TensorSpec, shape: Sequence[int]) -> str | None:
        """Why the engine can't take an input of a shape, as a sentence; any batch is fine."""
        skipped = 1 if spec.has_batch else 0
        bounds = list(zip(self.smallest, self.largest, strict=True))[skipped:]
        sizes = shape[skipped:]
        if all(low <= size <= high for size, (low, high) in zip(sizes, bounds, strict=True)):
            return None
        wanted = "x".join(f"{low}" if low == high else f"{low}-{high}" for low, high in bounds)
        each = " for each image" if skipped else ""
        return f"The engine takes {spec.name!r} of {wanted}{each}, got {in_words(sizes)}."

    def pieces(self, count: int) -> Iterator[tuple[int, int]]:
        """Start and end of each call of the engine for a batch of `count`; none is one too."""
        largest = self.largest[_BATCH]
        for start in range(0, max(count, 1), largest):
            yield start, min(start + largest, count)


def in_words(shape: Sequence[int]) -> str:
    """A shape as trtexec writes it: 8x3x32x32."""
    return "x".join(map(str, shape))
