"""The shapes that an engine is built for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from micronet.errors import DeployError

_BATCH, _SIZE = 0, {"height": 2, "width": 3}


def _as_shape(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape)


@attrs.frozen
class Profile:
    """Shapes of the input, batch first: the smallest, the one to be fastest at, the largest."""

    smallest: tuple[int, ...] = attrs.field(converter=_as_shape)
    best: tuple[int, ...] = attrs.field(converter=_as_shape)
    largest: tuple[int, ...] = attrs.field(converter=_as_shape)

    @classmethod
    def around(
        cls,
        example: Sequence[int],
        dynamic: Sequence[str],
        *,
        best_batch: int,
        max_batch: int,
        min_size: tuple[int, int] | None,
        max_size: tuple[int, int] | None,
    ) -> Profile:
        """A profile for inputs like an example; dimensions that are not dynamic are the example's.

        Args:
            example: Shape of an example, batch first.
            dynamic: Dimensions that may differ: "batch", "height", "width".
            best_batch: Batch to be fastest at.
            max_batch: Largest batch.
            min_size: Smallest height and width; half of the example's if `None`.
            max_size: Largest height and width; twice the example's if `None`.

        Raises:
            DeployError: The example lies outside the sizes.
        """
        smallest, best, largest = list(example), list(example), list(example)
        if "batch" in dynamic:
            smallest[_BATCH], best[_BATCH], largest[_BATCH] = 1, best_batch, max_batch
        for index, (name, axis) in enumerate(_SIZE.items()):
            if name not in dynamic:
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

    def why_not(self, shape: Sequence[int]) -> str | None:
        """Why the engine can't take inputs of a shape, as a sentence; any batch is fine."""
        images, bounds = shape[1:], list(zip(self.smallest, self.largest, strict=True))[1:]
        fits = len(images) == len(bounds) and all(
            low <= size <= high for size, (low, high) in zip(images, bounds, strict=True)
        )
        if fits:
            return None
        wanted = "x".join(f"{low}" if low == high else f"{low}-{high}" for low, high in bounds)
        return f"The engine takes images of {wanted}, got {in_words(images) or 'a number'}."

    def pieces(self, count: int) -> Iterator[tuple[int, int]]:
        """Start and end of each call of the engine for a batch of `count`; none is one too."""
        largest = self.largest[_BATCH]
        for start in range(0, max(count, 1), largest):
            yield start, min(start + largest, count)


def in_words(shape: Sequence[int]) -> str:
    """A shape as trtexec writes it: 8x3x32x32."""
    return "x".join(map(str, shape))
