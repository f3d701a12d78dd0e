"""What the commands print, and where: results on stdout, remarks on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import typer

from micronet import tables
from micronet.errors import printable
from micronet.streams import results, say

JSON = typer.Option("--json", help="Print JSON for programs.")


def print_result(text: str) -> None:
    """A text and the end of a line on stdout."""
    print(printable(text), file=results(), flush=True)


def print_json(value: Any) -> None:
    print_result(json.dumps(value, indent=2))


def print_table(header: list[str], body: list[list[str]]) -> None:
    """See `tables.print_table`."""
    tables.print_table(header, body, results())


def tell(remarks: Iterable[str]) -> None:
    for remark in remarks:
        say(f"micronet: {remark}")


def counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
