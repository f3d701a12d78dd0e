"""The one `openvino.Core` of the process."""

from __future__ import annotations

from functools import cache

import openvino


@cache
def core() -> openvino.Core:
    """A Core that lives as long as the process.

    With a Core's first compilation its CPU plugin gives the thread a stack for signal handlers, and
    with the Core's end the one before, which by then may be that of another Core and gone: the next
    signal, be it Ctrl-C or a child's end, would be a segmentation fault.
    """
    return openvino.Core()
