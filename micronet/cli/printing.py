"""What the commands print, and where: results on stdout, remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import typer

JSON = typer.Option("--json", help="Print JSON for programs.")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def tell(remarks: Iterable[str]) -> None:
    for remark in remarks:
        print(f"micronet: {remark}", file=sys.stderr)


def counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
