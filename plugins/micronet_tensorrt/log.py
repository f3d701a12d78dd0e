"""What TensorRT has to say, for our sentences."""

from __future__ import annotations

from typing import Any


def collecting_logger() -> tuple[Any, list[str]]:
    """A logger for TensorRT that prints nothing, and the errors that it has been told."""
    import tensorrt

    errors: list[str] = []
    severities = tensorrt.ILogger.Severity

    class Collecting(tensorrt.ILogger):  # type: ignore[misc]  # its class is known at run time only
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (severities.INTERNAL_ERROR, severities.ERROR):
                errors.append(message.strip())

    return Collecting(), errors
