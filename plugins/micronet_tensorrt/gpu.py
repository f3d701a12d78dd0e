"""The GPU: which it is, and a CUDA context that lives beside those of other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from micronet.errors import describe_error
from micronet_tensorrt.engine_file import Platform

_DEVICE = 0
"""`CUDA_VISIBLE_DEVICES` says which GPU that is."""


def why_not_here() -> str | None:
    """Why TensorRT can't be used on this machine, with the line that mends it."""
    from importlib.util import find_spec

    for package in ("tensorrt", "pycuda"):
        if find_spec(package) is None:
            return f"{package} is not installed; pip install 'micronet[tensorrt]'"
    try:
        import tensorrt

        if int(tensorrt.__version__.split(".")[0]) < 10:  # noqa: PLR2004
            return (
                f"TensorRT {tensorrt.__version__} is too old; pip install --upgrade "
                f"'micronet[tensorrt]'"
            )
        import pycuda.driver as cuda

        cuda.init()
        if cuda.Device.count() == 0:
            return "there is no NVIDIA GPU; install its driver, or deploy where one is"
    except Exception as error:  # a driver may be missing, too old or at odds with the libraries
        return (
            f"its libraries fail ({describe_error(error)}); install a driver and versions that fit"
        )
    return None


def platform() -> Platform:
    """TensorRT and the GPU of this machine."""
    import pycuda.driver as cuda
    import tensorrt

    cuda.init()
    device = cuda.Device(_DEVICE)
    major, minor = device.compute_capability()
    return Platform(tensorrt.__version__, device.name(), f"{major}.{minor}")


@cache
def primary_context() -> Any:
    """The context that the CUDA runtime, and so TensorRT and torch, use on the GPU too.

    It is kept: when pycuda gives one back it leaves it on the thread's stack, above what a program
    may have put there.
    """
    import pycuda.driver as cuda

    cuda.init()
    return cuda.Device(_DEVICE).retain_primary_context()


@contextmanager
def current(cuda_context: Any) -> Iterator[None]:
    """Makes a context this thread's; afterwards the one that was there before is again."""
    cuda_context.push()
    try:
        yield
    finally:
        cuda_context.pop()
