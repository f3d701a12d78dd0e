"""What is known of the images that a model is measured on."""

from __future__ import annotations

import torch

from micronet.pipeline.samples import Samples
from micronet.techniques import Contents, ImageFacts

_LOOKED_AT = 256


def image_facts(data: Samples, contents: Contents | None = None) -> ImageFacts:
    """Of a test set.

    Args:
        data: Images, channels first; of many, some all over the set are looked at.
        contents: What the data set tells of itself.
    """
    places = range(0, len(data), max(1, len(data) // _LOOKED_AT))
    images = torch.stack([data[place][0].double() for place in places])
    by_channel = images.transpose(0, 1).flatten(1)
    return ImageFacts(
        channel_means=by_channel.mean(1).tolist(),
        channel_stds=by_channel.std(1).tolist(),
        labels=None if contents is None else contents.labels,
        mean=None if contents is None else contents.mean,
        std=None if contents is None else contents.std,
    )
