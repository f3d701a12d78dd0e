"""What the sweeps share: a process for each case, rows kept in a JSON file, tables in a page."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

Row = dict[str, Any]
"""Numbers by their names, or the reason under `failed` alone."""

_FORK = multiprocessing.get_context("fork")
_END = "<!-- end of table -->"


def parser(description: str | None, *, limit: float) -> argparse.ArgumentParser:
    """The options that all sweeps have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", help="Only these, as in 'alexnet,vgg11'.")
    parser.add_argument("--out", type=Path, help="JSON file that takes each row as it is done.")
    parser.add_argument("--page", type=Path, help="Page that takes the table.")
    parser.add_argument("--limit", type=float, default=limit, help="Seconds for one case.")
    return parser


def sweep(
    cases: Sequence[str], examine: Callable[[str, Path], Row], arguments: argparse.Namespace
) -> dict[str, Row]:
    """The row of each case; what --out holds already is not run again.

    Args:
        cases: Names.
        examine: Makes a case's row, with an empty directory for files, in a process of its own.
        arguments: From `parser`.
    """
    wanted = arguments.cases.split(",") if arguments.cases else cases
    rows: dict[str, Row] = {}
    if arguments.out and arguments.out.exists():
        rows = json.loads(arguments.out.read_text("utf-8"))
    missing = [case for case in wanted if case not in rows]
    if missing:
        _warm_up()
    for case in missing:
        rows[case] = _isolated(examine, case, arguments.limit)
        print(f"{case}: {rows[case]}", file=sys.stderr, flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return {case: rows[case] for case in wanted}


def _warm_up() -> None:
    """Loads what each case's process would otherwise load anew."""
    import torch
    from torch import nn

    from micronet import registry

    torch.set_num_threads(1)
    model, images = nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten()), torch.randn(2, 3, 8, 8)
    with tempfile.TemporaryDirectory() as directory:
        registry.create("deploy_backend", "onnxruntime").export(model, (images,), Path(directory))


def _isolated(examine: Callable[[str, Path], Row], case: str, limit: float) -> Row:
    """What a process of its own makes of a case, or why it can't."""
    receiver, sender = _FORK.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as directory:
        process = _FORK.Process(target=_send, args=(examine, case, Path(directory), sender))
        process.start()
        sender.close()
        row: Row = {}
        if not receiver.poll(limit):
            process.kill()
            row = {"failed": f"took more than {limit:g} s"}
        else:
            try:
                row = receiver.recv()
            except EOFError:  # it died
                process.join()
                row = {"failed": f"exit status {process.exitcode}"}
        process.join()
    return row


def _send(examine: Callable[[str, Path], Row], case: str, directory: Path, sender: Any) -> None:
    try:
        sender.send(examine(case, directory))
    except Exception as error:  # whatever it is, it is the case's row
        sender.send({"failed": f"{type(error).__name__}: {error}".splitlines()[0]})


def row(size: int, outcome: Any) -> Row:
    """From an attrs instance."""
    return {"size": size, **attrs.asdict(outcome)}


def versions(packages: Iterable[str]) -> str:
    """The machine, Python and packages that the numbers come from.

    Without VNNI, ONNX Runtime's sums of 8-bit products may overflow.
    """
    cpu = Path("/proc/cpuinfo")
    vnni = cpu.exists() and "vnni" in cpu.read_text("utf-8")
    machine = f"{platform.machine()} {'with' if vnni else 'without'} VNNI"
    named = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return f"{machine}, Python {platform.python_version()}, {', '.join(named)}"


def table(
    introduction: Iterable[str], header: Sequence[str], lines: Iterable[Sequence[str]]
) -> str:
    """Markdown."""
    cells = [header, ["---"] * len(header), *lines]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
    return "\n".join([*introduction, "", *rows])


def write(table: str, page: Path | None, name: str) -> None:
    """Puts a table into a page, between `<!-- table: NAME -->` and the next end, or prints it."""
    if page is None:
        print(table)
        return
    begin = f"<!-- table: {name} -->"
    between = re.compile(f"(?<={re.escape(begin)}\n).*?(?={re.escape(_END)})", re.DOTALL)
    text, count = between.subn(lambda _: f"\n{table}\n\n", page.read_text("utf-8"), count=1)
    if not count:
        print(table)
        sys.exit(f"{page} has no '{begin}' that '{_END}' follows.")
    page.write_text(text, "utf-8")
