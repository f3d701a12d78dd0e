"""What an engine takes in the place of its model's own images, and makes those of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from micronet.errors import DeployError, OptionError
from micronet.options import option

if TYPE_CHECKING:
    from micronet.techniques.dataset import Contents


@attrs.frozen(kw_only=True)
class EngineInput:
    """Images as a camera or a decoder gives them; the engine prepares them itself.

    Of pixels p in 0..255, or 0..1 where they are floats, it makes (p / 255 - mean) / std, channels
    first.
    """

    dtype: Literal["uint8", "float32"] = option(
        "uint8", doc="Pixels from 0 to 255, or from 0 to 1."
    )
    layout: Literal["nhwc", "nchw"] = option("nhwc", doc="Whether channels are last or first.")
    mean: tuple[float, ...] | None = option(
        None, doc="Subtracted from each channel in 0..1; as the data set says, if not given."
    )
    std: tuple[float, ...] | None = option(
        None, doc="What each channel is divided by then; as the data set says, if not given."
    )

    def __attrs_post_init__(self) -> None:
        if self.std is not None and min(self.std, default=0) <= 0:
            raise OptionError(f"std must hold numbers above 0, got {list(self.std)}.", "std")

    def known(self, contents: Contents | None, channels: int) -> EngineInput:
        """The same with mean and std, of the data set's where none are given.

        Args:
            contents: What the data set tells of itself.
            channels: Of its images.

        Raises:
            DeployError: Nobody says them, or they are of another number of channels.
        """
        mean = self.mean if self.mean is not None else contents and contents.mean
        std = self.std if self.std is not None else contents and contents.std
        if not mean or not std:
            raise DeployError(
                "input needs mean and std, by which the data's images were prepared from 0..1; "
                "the data set does not tell them."
            )
        if {len(mean), len(std)} - {1, channels}:
            raise DeployError(
                f"input needs a mean and a std for each of {channels} channels, or one for all, "
                f"got {list(mean)} and {list(std)}."
            )
        return attrs.evolve(self, mean=tuple(mean), std=tuple(std))
