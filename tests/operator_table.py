"""Torch's table of ONNX operators, made once in a process.

Every export makes it anew otherwise, which is a third of the time that a small model takes.
"""

import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry


def share() -> None:
    if not isinstance(ONNXRegistry.from_torchlib, functools._lru_cache_wrapper):
        ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
