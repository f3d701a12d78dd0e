"""What models are for: the tasks that come with micronet."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_tasks() -> list[Technique]:
    return [
        Technique(
            "classification",
            "One class, or several, for each image: top-1 and top-5, or mean average precision.",
            "micronet_tasks.classification:Classification",
        ),
        Technique(
            "segmentation",
            "A class for each pixel: mean intersection over union, pixel accuracy.",
            "micronet_tasks.segmentation:Segmentation",
        ),
        Technique(
            "detection",
            "Boxes with classes and scores: COCO's mean average precision.",
            "micronet_tasks.detection:Detection",
        ),
        Technique(
            "regression",
            "Numbers, one or a map of them, for each image: mean absolute error.",
            "micronet_tasks.regression:Regression",
        ),
    ]
