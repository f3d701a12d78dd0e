"""Folders of deployed models: what in them is the artifact's, and what is somebody's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from micronet.errors import DeployError
from micronet.techniques import Artifact
from micronet.techniques.deploy_backend import CARD, FLOAT


def refuse_others_files(folder: Path) -> None:
    """Only an artifact with nothing else in its folder may be replaced or removed.

    Raises:
        DeployError: Something else is there; the message names it.
    """
    if folder.is_symlink() or not folder.exists():  # a link goes, what it leads to stays
        return
    own = {*_written(folder), *_written(folder / FLOAT)}
    others = [folder] if not folder.is_dir() else [f for f in files_in(folder) if f not in own]
    if others and not (folder / CARD).is_file():
        raise DeployError(f"{folder} is no artifact's folder, so it is not replaced.")
    if others:
        raise DeployError(
            f"{others[0]} is of no artifact, so {folder} is not replaced. Move that file, or "
            f"choose another folder."
        )


def files_in(folder: Path) -> Iterator[Path]:
    """All files below a folder, links among them, in order."""
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        yield from (Path(root) / name for name in sorted([*files, *links]))


def _written(folder: Path) -> list[Path]:
    """The files that an artifact's card names, and the card."""
    try:
        artifact = Artifact.read(folder)
    except DeployError:
        return [folder / CARD]
    return [folder / name for name in (CARD, artifact.file, *artifact.more_files)]
