"""New plugins: a package that installs, with one small working technique and its tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template

from micronet.distribution import own_version
from micronet.errors import OptionError, listed, nearest
from micronet.storage.files import replacing_directory
from micronet.techniques import KINDS

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TEMPLATES = files(__name__) / "templates"


def new_plugin(kind: str, name: str, directory: Path | str | None = None) -> Path:
    """Writes a pip-installable package that brings one technique.

    Args:
        kind: Of the technique.
        name: The technique's, as recipes will use it: small letters, digits and underscores.
        directory: The package's folder; `micronet-NAME` in the current one if not given.

    Returns:
        The folder.

    Raises:
        OptionError: There is no such kind, the name is none, or the folder holds something.
    """
    if kind not in KINDS:
        raise OptionError(
            f"There is no kind {kind!r}.{nearest(kind, KINDS)} Allowed: {listed(KINDS)}.", "kind"
        )
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"NAME must be small letters, digits and single underscores, beginning with a letter, "
            f"as in decaying_peak; got {name!r}.",
            "name",
        )
    distribution = f"micronet-{name.replace('_', '-')}"
    directory = Path(directory or distribution)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise OptionError(f"{directory} is there already; choose another --dir.", "dir")
    words = {
        "kind": kind,
        "name": name,
        "distribution": distribution,
        "package": f"micronet_{name}",
        "Class": "".join(part.capitalize() for part in name.split("_")),
        "micronet": own_version(),
    }
    with replacing_directory(directory) as folder:
        for path, text in _files(kind):
            file = folder / Template(path).substitute(words)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(text).substitute(words), "utf-8")
    return directory


def _files(kind: str) -> Iterator[tuple[str, str]]:
    """Path and text of each template."""
    yield "pyproject.toml", _text("shared", "pyproject.toml")
    yield "README.md", _text("shared", "README.md")
    yield ".github/workflows/test.yml", _text("shared", "test.yml")
    yield "$package/__init__.py", _text("shared", "plugin.py")
    for resource in (_TEMPLATES / kind).iterdir():
        file = resource.name.removesuffix(".tmpl")
        folder = "tests" if file.startswith("test_") else "$package"
        path = f"{folder}/{file}" if folder == "$package" else "tests/test_$package.py"
        yield path, resource.read_text("utf-8")


def _text(folder: str, file: str) -> str:
    return (_TEMPLATES / folder / f"{file}.tmpl").read_text("utf-8")
