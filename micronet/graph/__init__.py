"""How a model is seen: followed into a graph, and what follows from who feeds whom."""

from micronet.graph.tracing import (
    ByMode,
    TracingError,
    conv_bn_pairs,
    execution_order,
    propagate_shapes,
    trace,
)

__all__ = [
    "ByMode",
    "TracingError",
    "conv_bn_pairs",
    "execution_order",
    "propagate_shapes",
    "trace",
]
