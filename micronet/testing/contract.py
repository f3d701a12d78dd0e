"""Contracts: what users of a technique rely on, each with what to do where it is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from micronet.errors import describe_error, listed, nearest
from micronet.options import build


class ContractError(AssertionError):
    """A technique breaks a contract; the message says which, what was seen and what to do."""


@attrs.define
class Case:
    """A technique under examination.

    Args:
        technique: An instance, with the options to examine.
    """

    technique: Any
    kind: ClassVar[str]

    @property
    def owner(self) -> str:
        """The technique as its author knows it."""
        cls = type(self.technique)
        return f"{self.kind} {cls.__module__}:{cls.__qualname__}"


C = TypeVar("C", bound=Case)


@attrs.frozen
class Contract(Generic[C]):
    """One promise.

    Args:
        name: As in `keeps_state_dict_keys`.
        promise: A sentence.
        remedy: What an author does who finds it broken.
        seen: What speaks against it, `None` if nothing does.
        applies: Whether a technique can be held to it, here and now.
    """

    name: str
    promise: str
    remedy: str
    seen: Callable[[C], str | None]
    applies: Callable[[C], bool]

    def verify(self, case: C) -> None:
        """Raises ContractError unless the technique keeps the promise."""
        try:
            seen = self.seen(case)
        except Exception as error:  # a technique under examination may raise anything
            raise ContractError(self._said(case, f"it raised {describe_error(error)}.")) from error
        if seen is not None:
            raise ContractError(self._said(case, seen))

    def _said(self, case: C, seen: str) -> str:
        return (
            f"{case.owner} breaks the contract {self.name}.\n"
            f"  Contract: {self.promise}\n  Seen: {seen}\n  To do: {self.remedy}"
        )


class Contracts(Generic[C]):
    """The contracts of a kind, in the order in which they were written."""

    def __init__(self, *shared: Contract[C]) -> None:
        self._contracts = list(shared)

    def __iter__(self) -> Iterator[Contract[C]]:
        return iter(self._contracts)

    def contract(
        self, remedy: str, applies: Callable[[C], bool] = lambda _: True
    ) -> Callable[[Callable[[C], str | None]], Callable[[C], str | None]]:
        """Makes a contract of a function that says what speaks against its docstring."""

        def add(seen: Callable[[C], str | None]) -> Callable[[C], str | None]:
            promise = " ".join((seen.__doc__ or "").split())
            self._contracts.append(Contract(seen.__name__, promise, remedy, seen, applies))
            return seen

        return add

    def check(self, case: C, expected_failures: Mapping[str, str]) -> None:
        """Verifies all contracts, and tells all that are broken at once.

        Args:
            case: The technique.
            expected_failures: Contracts that it is known to break, and why.

        Raises:
            ContractError: It breaks others, or keeps one of those.
        """
        names = [contract.name for contract in self]
        for name in expected_failures:
            if name not in names:
                raise ContractError(
                    f"There is no contract {name!r}.{nearest(name, names)} There are: "
                    f"{listed(names)}."
                )
        broken = []
        for contract in self:
            if not contract.applies(case):
                continue
            try:
                contract.verify(case)
            except ContractError as error:
                if contract.name not in expected_failures:
                    broken.append(error)
            else:
                if contract.name in expected_failures:
                    broken.append(
                        ContractError(
                            f"{case.owner} keeps the contract {contract.name}, which is among its "
                            f"expected failures: {expected_failures[contract.name]}"
                        )
                    )
        if broken:
            raise ContractError("\n\n".join(map(str, broken))) from broken[0]


def options_survive_json(case: Case) -> str | None:
    """Options written as JSON and read back build an equal technique, as a resumed run does."""
    told = json.loads(json.dumps(attrs.asdict(case.technique)))
    again = build(type(case.technique), told)
    return None if again == case.technique else f"{case.technique} came back as {again}."


def loads_without_torch(case: Case) -> str | None:
    """The class's module imports no torch, so that listing and `micronet show` stay fast."""
    module = type(case.technique).__module__
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(  # noqa: S603 (our own interpreter)
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if done.returncode == 0:
        return None
    reason = (done.stderr.strip().splitlines() or ["it imports torch"])[-1]
    return f"importing {module}: {reason}."


def environment() -> dict[str, str]:
    """For a process that imports what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def is_importable(case: Case) -> bool:
    """Whether another process can import the technique's module; a test's own is no plugin's."""
    module = type(case.technique).__module__
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and not Path(spec.origin or "").name.startswith("test_")


def shared_contracts() -> list[Contract[Any]]:
    """What holds for techniques of every kind."""
    return [
        Contract(
            "options_survive_json",
            options_survive_json.__doc__ or "",
            "Give options plain types: numbers, texts, booleans, tuples and mappings of those.",
            options_survive_json,
            lambda _: True,
        ),
        Contract(
            "loads_without_torch",
            loads_without_torch.__doc__ or "",
            "Import torch, and what imports it, inside the methods.",
            loads_without_torch,
            is_importable,
        ),
    ]
