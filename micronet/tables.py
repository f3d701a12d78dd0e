"""Tables on stdout. No cell is ever cut: people compare the numbers."""

from __future__ import annotations

import os
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from micronet.errors import printable

Cells = list[list[str]]
"""Rows of text, the header first."""


def print_table(header: list[str], body: list[list[str]], file: TextIO | None = None) -> None:
    """A table of words, which take several lines where the terminal is narrow."""
    cells = [header, *body]
    console = _console(file)
    fits = _width(cells) <= console.width
    if not console.is_terminal:
        console.width = _width(cells)
    console.print(_table(cells, close=console.is_terminal and not fits, wrap=True))


def print_tables_that_fit(*choices: list[Cells], file: TextIO | None = None) -> None:
    """The first choice whose tables fit the terminal, else the last one drawn closer together.

    Args:
        choices: Each some tables, the widest first; those of a header alone are left out.
        file: Where to print; stdout if not given.
    """
    console = _console(file)
    fitting = [tables for tables in choices if max(map(_width, tables)) <= console.width]
    close = console.is_terminal and not fitting
    tables = choices[-1] if close else (fitting or choices)[0]
    if close:
        tables = [
            [[title.replace(" ", "\n") for title in header], *body] for header, *body in tables
        ]
    console.width = max(console.width, *(_width(cells, close=close) for cells in tables))
    for cells in tables:
        if len(cells) > 1:
            console.print(_table(cells, close=close))


def _console(file: TextIO | None) -> Console:
    console = Console(file=file, markup=False, highlight=False)
    if file is not None and file.isatty() and "COLUMNS" not in os.environ:
        console.width = os.get_terminal_size(file.fileno()).columns  # stdout may be another
    return console


def _table(cells: Cells, *, close: bool = False, wrap: bool = False) -> Table:
    header, *body = cells
    padding = (0, 1, 0, 0) if close else (0, 1)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding)
    for number, title in enumerate(header):
        table.add_column(title, overflow="fold", no_wrap=number == 0 or not wrap)
    for row in body:
        table.add_row(*map(printable, row))
    return table


def _width(cells: Cells, *, close: bool = False) -> int:
    return Console(width=10_000, markup=False).measure(_table(cells, close=close)).maximum
