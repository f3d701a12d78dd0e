"""Paths that a user gave, of whatever shape."""

from __future__ import annotations

import os
from pathlib import Path

from micronet.storage.files import no_file

_LONGEST = 200


def path_of(text: str, folder: Path = Path()) -> Path:
    """The path that a text means, from a folder, with the user's home for `~`."""
    return folder / os.path.expanduser(text)  # noqa: PTH111 (leaves an unknown user as written)


def why_no_file(path: Path) -> str | None:
    """Why a path can't be read as a file, `None` if it can."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return error.strerror or type(error).__name__
    except UnicodeEncodeError:
        return "this locale has no such character; set LC_ALL=C.UTF-8"
    except ValueError:
        return "a path holds no NUL"
    return no_file(mode)


def shown(path: Path | str) -> str:
    """A path for a sentence, however long it is and whatever stands in it."""
    text = str(path)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 4 :]}"
    return text if text.isprintable() else repr(text)
