"""Where a run takes place: what its numbers, and its bits, depend on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from micronet.distribution import own_version
from micronet.storage.files import sha256

_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""By these, kernels compute otherwise, below all that micronet could set."""
_PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "onnx", "onnxruntime")


def environment(
    *,
    seed: int,
    processes: int,
    device: str,
    code: Mapping[str, Path],
    weights: Path | None,
    ignored: Mapping[str, str],
) -> dict[str, Any]:
    """Versions, seed, hardware and the user's own files, as JSON knows them.

    Args:
        seed: Of the recipe.
        processes: Of the run.
        device: Where the model is.
        code: The user's own modules, by their names in the recipe.
        weights: The file that the model starts from.
        ignored: Variables that were set and not heeded.
    """
    import torch

    return {
        "seed": seed,
        "python": platform.python_version(),
        "packages": {
            "micronet": own_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "processes": processes,
        "code": {name: sha256(file) for name, file in code.items()},
        "weights": None if weights is None else sha256(weights),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "ignored": dict(ignored),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of it differs, in words; the weights are not among it."""
    old, new = _flat(before), _flat(now)
    values = [
        f"{key} was {_told(old.get(key))}, is now {_told(new.get(key))}"
        for key in {**new, **old}
        if old.get(key) != new.get(key)
    ]
    old_code = _part(before, "code")
    code = [f"the code of {n} has changed" for n, h in now["code"].items() if old_code.get(n) != h]
    return values + code


def _flat(environment: dict[str, Any]) -> dict[str, Any]:
    apart = ("packages", "variables", "ignored", "code", "weights")
    return {
        **_part(environment, "packages"),
        **{key: value for key, value in environment.items() if key not in apart},
        **_part(environment, "variables"),
        **{f"{name} (ignored)": value for name, value in _part(environment, "ignored").items()},
    }


def _part(environment: dict[str, Any], key: str) -> dict[str, Any]:
    """A part that was read back, of whatever shape that is."""
    part = environment.get(key)
    return part if isinstance(part, dict) else {}


def _told(value: Any) -> str:
    return "not there" if value is None else str(value)


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
