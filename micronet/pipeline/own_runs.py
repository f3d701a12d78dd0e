"""Which runs are this user's: their recipes are signed with a key that nobody else has.

A folder that somebody handed over holds a recipe too, and what code that names is not for the
folder to decide. Another user, another machine or a lost key make a run a stranger's: its code is
then named again by who trusts it.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from micronet.errors import DataError
from micronet.storage.files import read_bytes, sum_of_json

_LENGTH = 32
"""Bytes of the key."""


def signature(recipe: Any) -> str | None:
    """A recipe's signature by this user, `None` where his key can't be kept."""
    key = _key() or _new_key()
    return None if key is None else _signed(recipe, key)


def is_own(recipe: Any, signed: str | None) -> bool:
    """Whether this user has signed a recipe."""
    key = _key()
    if key is None or signed is None:
        return False
    return hmac.compare_digest(_signed(recipe, key).encode(), signed.encode())


def key_file() -> Path | None:
    """Where the user's key lies; `None` where he has no home."""
    from platformdirs import user_state_path

    path = user_state_path("micronet") / "own-runs.key"
    return path if path.is_absolute() else None


def _signed(recipe: Any, key: bytes) -> str:
    return hmac.digest(key, f"recipe of a run {sum_of_json(recipe)}".encode(), "sha256").hex()


def _key() -> bytes | None:
    path = key_file()
    try:
        key = read_bytes(path) if path else b""
    except DataError:  # there is none
        return None
    return key if len(key) == _LENGTH else None


def _new_key() -> bytes | None:
    """A key that is kept from now on: the first one, where several processes make theirs."""
    path = key_file()
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_LENGTH))
                file.flush()
                os.fsync(handle)
            with contextlib.suppress(OSError):  # unlike a rename it replaces no other's key
                path.hardlink_to(temporary)
            if _key() is None:  # no links here, or a damaged key
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        return None
    return _key()
