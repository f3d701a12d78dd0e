"""Other functions in the place of torch's, while a model is exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode


class Replacing(TorchFunctionMode):
    """A context in which calls of some of torch's functions are those of others.

    Args:
        others: By the function of torch's; they take the same arguments, and may call it.
    """

    def __init__(self, others: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._others = others

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Iterable[Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self._others.get(func, func)(*args, **(kwargs or {}))
