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
    ]
