"""A class that is no technique, and one whose option's type does not resolve."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_quantizers():
    return [
        Technique("plain_class", "No attrs class.", "micronet_broken.technique:Plain"),
        Technique("unresolved", "Its option has no type.", "micronet_broken.technique:Unresolved"),
    ]
