"""Where a run takes place: what its numbers, and its bits, depend on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("micronet", "torch", "torchvision", "accelerate", "numpy", "onnx", "onnxruntime")


def environment(*, seed: int, processes: int, device: str) -> dict[str, Any]:
    """Versions, seed and hardware, as JSON knows them."""
    import torch

    return {
        "seed": seed,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "processes": processes,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of it differs, in words."""
    flat_before, flat_now = _flat(before), _flat(now)
    return [
        f"{key} was {flat_before.get(key)}, is now {value}"
        for key, value in flat_now.items()
        if flat_before.get(key) != value
    ]


def _flat(environment: dict[str, Any]) -> dict[str, Any]:
    return {
        **environment.get("packages", {}),
        **{k: v for k, v in environment.items() if k != "packages"},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
