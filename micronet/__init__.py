"""micronet makes trained PyTorch vision models small and fast on real targets.

Importing this package imports neither torch nor any plugin; what needs them loads on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micronet import registry as registry
    from micronet.pipeline import load_packed as load_packed
    from micronet.pipeline import run as run
    from micronet.recipe import Recipe as Recipe
    from micronet.storage.pruned import load_pruned as load_pruned
    from micronet.storage.pruned import save_pruned as save_pruned

__all__ = [
    "Recipe",
    "__version__",
    "load_packed",
    "load_pruned",
    "quant_test_auto",
    "quant_test_manual",
    "registry",
    "run",
    "save_pruned",
]

_LAZY = {
    "registry": ("micronet.registry", None),
    "Recipe": ("micronet.recipe", "Recipe"),
    "load_packed": ("micronet.pipeline", "load_packed"),
    "load_pruned": ("micronet.storage.pruned", "load_pruned"),
    "save_pruned": ("micronet.storage.pruned", "save_pruned"),
    "run": ("micronet.pipeline", "run"),
    "quant_test_manual": ("micronet.compression.quantization.lenet", "quant_test_manual"),
    "quant_test_auto": ("micronet.compression.quantization.lenet", "quant_test_auto"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from micronet.distribution import own_version

        return own_version()
    if name not in _LAZY:
        raise AttributeError(f"module 'micronet' has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    return getattr(module, attribute) if attribute else module


def __dir__() -> list[str]:
    return sorted(__all__)
