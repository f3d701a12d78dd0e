"""How a model is seen: followed into graphs, and what follows from who feeds whom."""

from micronet.graph.guard import ChangedFunctionError, check_same_function
from micronet.graph.order import execution_order
from micronet.graph.pairs import conv_bn_pairs, make_foldable
from micronet.graph.specialized import SpecializationError, TracingError
from micronet.graph.tracing import follow, graphs, trace, trace_parts

__all__ = [
    "ChangedFunctionError",
    "SpecializationError",
    "TracingError",
    "check_same_function",
    "conv_bn_pairs",
    "execution_order",
    "follow",
    "graphs",
    "make_foldable",
    "trace",
    "trace_parts",
]
