"""What images a deployed model was measured on, for those who feed it."""

from __future__ import annotations

import attrs


def _numbers(values: object) -> tuple[float, ...]:
    return tuple(values)  # type: ignore[arg-type]


@attrs.frozen(kw_only=True)
class ImageFacts:
    """How images were prepared, and what the classes are called.

    Args:
        channel_means: Of each channel over test images, as the model takes them.
        channel_stds: Their standard deviations.
        labels: Names of the classes, in the order of their numbers; `None` if nobody said.
        mean: What was subtracted from each channel of an image in 0..1; `None` if nobody said.
        std: What each channel was divided by after that; likewise.
    """

    channel_means: tuple[float, ...] = attrs.field(converter=_numbers)
    channel_stds: tuple[float, ...] = attrs.field(converter=_numbers)
    labels: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def unlike(self, other: ImageFacts) -> str | None:
        """What tells that images were prepared otherwise, as a sentence; `None` if nothing does."""
        pairs = zip(
            self.channel_means, self.channel_stds, other.channel_means, other.channel_stds,
            strict=False,
        )  # fmt: skip
        for channel, (mean, std, other_mean, other_std) in enumerate(pairs):
            apart = abs(mean - other_mean) > max(std, other_std) / 2
            wider = not 1 / _RATIO < (other_std + _LEAST) / (std + _LEAST) < _RATIO
            if apart or wider:
                return (
                    f"These images seem to be prepared otherwise: channel {channel} has a mean of "
                    f"{other_mean:.3g} and a deviation of {other_std:.3g}, where it had "
                    f"{mean:.3g} and {std:.3g} as the model was deployed."
                )
        return None


_RATIO = 1.6
_LEAST = 1e-3
