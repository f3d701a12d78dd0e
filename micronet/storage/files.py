"""Writing files so that a reader, or a run after a crash, never meets half of one."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from micronet.errors import DataError, MicronetError, refusal


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
        yield temporary
        with writing(path):
            for file in temporary.rglob("*"):
                _flush(file)
            temporary.chmod(0o777 & ~_umask())
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
            if path.exists():
                path.replace(old)
            temporary.replace(path)
            _flush(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def read_text(path: Path | str) -> str:
    """A text file's content.

    Raises:
        DataError: The system refuses it, it is no file, or no text in UTF-8.
    """
    try:
        return regular(path).read_text("utf-8")
    except OSError as error:
        raise refusal(error, path, use="read") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} can't be read: it is not UTF-8 text.") from error
    except ValueError as error:  # a path with NUL in it
        raise DataError(f"{str(path)!r} can't be read: {error}.") from error


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
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a device")
        raise DataError(f"{path} can't be read: it is no file but {kind}.")
    return path


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def remove_leftovers(folder: Path | str) -> None:
    """Removes the temporary files and folders of writers that were killed; none may be at work."""
    for path in Path(folder).rglob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
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
