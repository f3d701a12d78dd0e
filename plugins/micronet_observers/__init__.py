"""Observers: which range of real numbers a quantized tensor covers."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_observers() -> list[Technique]:
    return [
        Technique(
            "minmax",
            "The smallest and largest value ever seen.",
            "micronet_observers.observers:MinMax",
        ),
        Technique(
            "moving_average",
            "A moving average of each batch's smallest and largest value.",
            "micronet_observers.observers:MovingAverage",
        ),
        Technique(
            "percentile",
            "A moving average of a low and a high percentile of each batch.",
            "micronet_observers.observers:Percentile",
        ),
        Technique(
            "mse",
            "The range with the least squared error, over all values seen.",
            "micronet_observers.observers:MSE",
        ),
        Technique(
            "entropy",
            "The range whose codes keep most of the values' information.",
            "micronet_observers.observers:Entropy",
        ),
    ]
