"""In which terms engines differ about a quantized layer."""

import attrs


@attrs.frozen
class Scheme:
    """The integers of a quantized layer.

    Args:
        w_bits: Width of the weights; 32 for float ones.
        a_bits: Width of the activations; 32 for float ones.
        w_symmetric: Whether the weights' zero point is 0.
        a_symmetric: Whether the activations' zero point is 0 and their codes have both signs.
        per_channel: Whether each output channel of a weight has a scale of its own.
    """

    w_bits: float = 8
    a_bits: float = 8
    w_symmetric: bool = True
    a_symmetric: bool = False
    per_channel: bool = True
