"""What lies where weights should be, told from its first bytes, without running any of it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

_HEAD = 512
_PAGES = (b"<!doctype", b"<html", b"<?xml")


def kind_of_file(path: Path) -> str:
    """How to read a file: `safetensors`, `torch`, or why not, as the tail of a sentence.

    Raises:
        OSError: The system refuses it.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"\x80"):
        return "torch"
    if head.startswith(b"PK"):
        return _kind_of_archive(path)
    start = head.lstrip().lower()
    kinds: tuple[tuple[bool, str], ...] = (
        (not head, "it is empty"),
        (
            start.startswith(b"version https://git-lfs"),
            "it is a pointer of Git LFS, not the file itself; git lfs pull fetches that",
        ),
        (
            start.startswith(_PAGES),
            "it is a page of the web, as a failed download leaves it; download the file again",
        ),
    )
    return next((why for true, why in kinds if true), "neither torch.save nor safetensors wrote it")


def _kind_of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError):
        return "it is an archive that was cut off or damaged"
    kinds: tuple[tuple[Callable[[str], bool], str], ...] = (
        (
            lambda name: name == "constants.pkl",
            "it is a TorchScript archive, a program; save torch.jit.load(FILE).state_dict()",
        ),
        (
            lambda name: name.startswith("models/"),
            "it is a program of torch.export; save torch.export.load(FILE).state_dict",
        ),
        (lambda name: name == "data.pkl", "torch"),
    )
    return next((kind for fits, kind in kinds if any(map(fits, names))), "it is another archive")
