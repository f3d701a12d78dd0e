"""Models and data sets that come with micronet."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_models() -> list[Technique]:
    return [
        Technique(
            "nin",
            "Network in network for 32x32 images, 0.97 million parameters.",
            "micronet_zoo.models:NIN",
        ),
        Technique(
            "nin_gc",
            "Network in network with group convolutions and channel shuffle, 0.59 million.",
            "micronet_zoo.models:NINGC",
        ),
    ]


@hookimpl
def micronet_datasets() -> list[Technique]:
    return [
        Technique(
            "digits",
            "scikit-learn's 1797 handwritten digits as 3x32x32 images; needs no network.",
            "micronet_zoo.datasets:Digits",
        ),
        Technique(
            "cifar10",
            "CIFAR-10, 60000 photographs of 3x32x32 in 10 classes; fetched once.",
            "micronet_zoo.datasets:CIFAR10",
        ),
        Technique(
            "image_folder",
            "Your own images: a folder for train and one for test, in each a folder a class.",
            "micronet_zoo.datasets:ImageFolder",
        ),
    ]
