"""Contracts of all registered techniques as pytest's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from micronet import registry
from micronet.errors import listed
from micronet.testing.contract import Case, Contracts
from micronet.testing.deploy_backend import BACKEND, DeployBackendCase
from micronet.testing.fuser import FUSER, FuserCase
from micronet.testing.observer import OBSERVER, ObserverCase
from micronet.testing.pruner import PRUNER, PrunerCase
from micronet.testing.quantizer import QUANTIZER, QuantizerCase

if TYPE_CHECKING:
    import pytest

_KINDS: dict[str, tuple[Contracts[Any], Callable[[Any], Case]]] = {
    "quantizer": (QUANTIZER, QuantizerCase),
    "observer": (OBSERVER, ObserverCase),
    "pruner": (PRUNER, PrunerCase),
    "fuser": (FUSER, FuserCase),
    "deploy_backend": (BACKEND, DeployBackendCase),
}


def every(
    kind: str,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    expected_failures: Mapping[str, Mapping[str, str]] | None = None,
    distribution: str | None = None,
) -> pytest.MarkDecorator:
    """Parametrizes a test with `contract` and `case`, for each registered technique of a kind.

        @every("quantizer")
        def test_quantizers(contract, case):
            contract.verify(case)

    Args:
        kind: As in quantizer, observer, pruner, fuser, deploy_backend.
        options: Options of techniques by their names.
        expected_failures: For techniques by name, contracts that they break, and why; such a test
            fails once the contract is kept.
        distribution: Only the techniques that this distribution brings.
    """
    import pytest

    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {listed(_KINDS)}, got {kind!r}.")
    parameters = _parameters(kind, options or {}, expected_failures or {}, distribution)
    return pytest.mark.parametrize(("contract", "case"), list(parameters))


def _parameters(
    kind: str,
    options: Mapping[str, Mapping[str, Any]],
    expected_failures: Mapping[str, Mapping[str, str]],
    distribution: str | None,
) -> Iterator[Any]:
    import pytest

    contracts, make_case = _KINDS[kind]
    for entry in registry.list(kind):
        if distribution not in (None, entry.distribution):
            continue
        if entry.install is not None:
            missing = pytest.mark.skip(reason=f"needs {entry.install}")
            yield pytest.param(None, None, id=entry.name, marks=missing)
            continue
        name = f"{entry.distribution}:{entry.name}"
        case = make_case(registry.create(kind, name, **options.get(entry.name, {})))
        for contract in contracts:
            marks = []
            if not contract.applies(case):
                marks.append(pytest.mark.skip(reason="The contract does not apply here."))
            reason = expected_failures.get(entry.name, {}).get(contract.name)
            if reason is not None:
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            yield pytest.param(contract, case, id=f"{entry.name}-{contract.name}", marks=marks)
