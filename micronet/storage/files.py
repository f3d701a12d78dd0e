"""Files that are whole: written under another name and renamed, and checked as they are read."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from micronet.errors import DataError, MicronetError, WriteError, refusal
from micronet.plain import from_json, structured

T = TypeVar("T")


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    The content reaches the disk before the name changes, so a power cut leaves the old file or
    the new one. When the block fails, `path` is as it was and the temporary file is gone.

    Raises:
        WriteError: The system refuses it.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _flush(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(path: Path | str) -> Iterator[Path]:
    """The same for a folder: filled under a temporary name, then renamed."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        with _called(path, temporary):
            yield temporary
        with writing(path):
            for file in temporary.rglob("*"):
                _flush(file)
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                _exchange(temporary, path)
            else:
                temporary.replace(path)
            _flush(path.parent)
    finally:
        with suppress(OSError):  # what took its place is there, or an error is on its way
            remove(temporary)


@contextmanager
def _called(path: Path, temporary: Path) -> Iterator[None]:
    """Names the folder that is meant where a message names the temporary one."""
    try:
        yield
    except WriteError as error:
        if str(temporary) not in str(error):
            raise
        renamed = WriteError(str(error).replace(str(temporary), str(path)))
        renamed.errno = error.errno
        raise renamed from error


def _exchange(temporary: Path, path: Path) -> None:
    """Swaps two folders; on Linux in one step, so that a kill leaves one of them at `path`."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        rename = getattr(libc, "renameat2", None)
        names = os.fsencode(temporary), os.fsencode(path)
        if rename is not None and rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
            return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    path.replace(old)
    temporary.replace(path)
    old.replace(temporary)


_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of renameat2(2)."""


def write_text(path: Path | str, text: str) -> None:
    """Writes a text file, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Tells what the system refuses in the block as a WriteError that names `path`."""
    try:
        yield
    except MicronetError:
        raise
    except OSError as error:
        raise refusal(error, path, use="write") from error


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Writes a mapping for `read_json`, with a sum by which every change is noticed."""
    text = json.dumps({**content, _SUM: sum_of_json(content)}, indent=2, allow_nan=False)
    write_text(path, f"{text}\n")


_SUM = "sha256"


def sum_of_json(plain: Any) -> str:
    """SHA-256 of what JSON keeps of a value, in hexadecimal."""
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def read_bytes(path: Path | str) -> bytes:
    """A file's content.

    Raises:
        DataError: The system refuses it, it is no file, or larger than the memory.
    """
    try:
        return _content(path)
    except OSError as error:
        raise refusal(error, path, use="read") from error
    except ValueError as error:  # a path with NUL in it
        raise DataError(f"{str(path)!r} can't be read: {error}.") from error


def read_text(path: Path | str) -> str:
    """A text file's content.

    Raises:
        DataError: As `read_bytes`, or it is no text in UTF-8.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} can't be read: it is not UTF-8 text.") from error


def read_json(path: Path | str, kind: type[T], what: str) -> T:
    """An instance of a type from a file of `write_json`.

    Args:
        path: The file.
        kind: As `micronet.plain.structured` takes it.
        what: What the file should be, for the message.

    Raises:
        FileNotFoundError: There is none.
        DataError: It can't be read, was changed, or holds something else.
    """
    try:
        return structured(_summed(from_json(_content(path), dict[str, Any])), kind)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, DataError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise DataError(f"{path} is no readable {what}: {reason}.") from error


def _summed(content: dict[str, Any]) -> dict[str, Any]:
    if _SUM not in content:
        raise DataError("it bears no sum, so an older micronet or somebody else wrote it")
    if content.pop(_SUM) != sum_of_json(content):
        raise DataError("it was changed since it was written")
    return content


def _content(path: Path | str) -> bytes:
    """A file's content; what the system refuses passes as its own error."""
    path = regular(path)
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError(f"{path} can't be read: it is a link that leads nowhere.") from error
        raise
    except MemoryError as error:
        raise DataError(f"{path} can't be read: it is larger than the memory.") from error


def regular(path: Path | str) -> Path:
    """A path, unless something else than a file is there, such as a pipe, on which one could wait.

    Raises:
        DataError: A folder, a pipe or a device is there.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError:  # reading it will tell
        return path
    if (why := no_file(mode)) is not None:
        raise DataError(f"{path} can't be read: {why}.")
    return path


def no_file(mode: int) -> str | None:
    """What is there instead of a file, by its `st_mode`, as the tail of a sentence."""
    if stat.S_ISREG(mode):
        return None
    return f"it is no file but {_KINDS.get(stat.S_IFMT(mode), 'a device')}"


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def sha256(path: Path | str) -> str:
    """Of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_sums(folder: Path, sums: Mapping[str, str], remedy: str) -> None:
    """Refuses files that are not as they were written.

    Args:
        folder: Where they are.
        sums: Their SHA-256 by their names, relative to the folder.
        remedy: The way on, as a sentence.

    Raises:
        DataError: One is missing or changed, or lies elsewhere.
    """
    for name, expected in sums.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{folder} names a file outside of it, {name}.")
        try:
            same = sha256(regular(path)) == expected
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror}. {remedy}") from error
        if not same:
            raise DataError(f"{path} was changed since it was written. {remedy}")


def remove_leftovers(folder: Path | str, names: Iterable[str]) -> None:
    """Removes what writers of these files and folders were at when they were killed.

    None may be at work.
    """
    for name in names:
        for path in Path(folder).glob(f".{glob.escape(name)}.*.tmp"):
            remove(path)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with all that is in it; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
