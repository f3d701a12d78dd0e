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
    moments = torch.zeros(2, len(data[0][0]), dtype=torch.float64)
    for place in places:
        channels = data[place][0].double().reshape(moments.shape[1], -1)
        moments += torch.stack([channels.mean(1), channels.square().mean(1)]) / len(places)
    means, squares = moments
    return ImageFacts(
        channel_means=means.tolist(),
        channel_stds=(squares - means.square()).clamp_min(0).sqrt().tolist(),
        labels=None if contents is None else contents.labels,
        mean=None if contents is None else contents.mean,
        std=None if contents is None else contents.std,
    )
