"""A run's folder: what is finished, and how it got there."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml
from filelock import FileLock, Timeout

from micronet.errors import DataError, MicronetError, RunError
from micronet.pipeline.results import Results, Row
from micronet.recipe import to_plain
from micronet.recipe.file import Source, structure
from micronet.recipe.resolution import resolve
from micronet.storage.files import remove_leftovers, write_text, writing

_RECIPE, _ENVIRONMENT, _LOCK = "recipe.yaml", "environment.json", ".lock"
_RESULTS = ("results.json", "results.md")


@attrs.frozen
class Record:
    """What a finished step leaves beside its weights.

    Args:
        row: Its measurements, `None` if the step measures nothing.
        plan: What a prune step kept, as `PruningPlan.to_json` writes it.
        remarks: What to say about its timings, a sentence each; another time it may be another.
    """

    row: Row | None
    plan: str | None = None
    remarks: Sequence[str] = ()


@attrs.frozen
class RunFolder:
    """Paths and files of one run.

    A step is finished when its record exists; the record is written last, and renamed into place.
    """

    path: Path

    @property
    def deployed(self) -> Path:
        return self.path / "deploy"

    def weights(self, step: str) -> Path:
        return self.path / "steps" / f"{step}.safetensors"

    def packed(self, step: str) -> Path:
        return self.path / "steps" / f"{step}.packed.safetensors"

    def epoch(self, step: str) -> Path:
        return self.path / "steps" / f"{step}.epoch.pt"

    def record(self, step: str) -> Path:
        return self.path / "steps" / f"{step}.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out; the lock of a killed run is free.

        Raises:
            RunError: Another run works here, or none can.
            WriteError: The system refuses the folder.
        """
        with writing(self.path):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise RunError(
                    f"--out must be a folder, and {error.filename} is a file."
                ) from error
        lock = FileLock(self.path / _LOCK)
        with writing(self.path / _LOCK):
            try:
                lock.acquire(blocking=False)
            except Timeout as error:
                raise RunError(
                    f"Another run works in {self.path}. Wait for it, or choose another --out."
                ) from error
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                    raise
                raise RunError(
                    f"The file system of {self.path} gives no locks, which keep other runs out. "
                    f"Choose an --out on another."
                ) from error
        try:
            yield
        finally:
            lock.release()

    def open(self, recipe: dict[str, Any], environment: Mapping[str, Any], *, fresh: bool) -> None:
        """Prepares the folder for a recipe's first or next start; call with the lock held.

        Raises:
            RunError: It holds something else, or a run of another recipe.
        """
        if not self._is_run() and any(entry.name != _LOCK for entry in self.path.iterdir()):
            raise RunError(f"{self.path} holds files that are no run's. Choose another --out.")
        self._remove_leftovers()
        if fresh:
            self._clear()
        stored = self.path / _RECIPE
        if stored.exists():
            before = _read_yaml(stored)
            if before != recipe and (changes := _changes(_with_newer_options(before), recipe)):
                raise RunError(
                    f"{self.path} holds a run of another recipe: {'; '.join(changes[:3])}. Use "
                    f"--fresh to start again, or another --out."
                )
        # In this order: a folder with a recipe alone may be a user's own.
        write_text(self.path / _ENVIRONMENT, json.dumps(dict(environment), indent=2) + "\n")
        if not stored.exists():
            write_text(stored, yaml.safe_dump(recipe, sort_keys=False, width=100))

    def environment(self) -> dict[str, Any] | None:
        """Where the run was started before, `None` on the first start."""
        try:
            found: dict[str, Any] = json.loads((self.path / _ENVIRONMENT).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / _ENVIRONMENT} can't be read: {error}") from error
        return found

    def finished(self, step: str) -> Record | None:
        """A step's record, `None` if the step is not finished."""
        path = self.record(step)
        try:
            plain = json.loads(path.read_text("utf-8"))
            row = None if plain["row"] is None else Row(**plain["row"])
            return Record(row, plain["plan"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} can't be read: {error}. Use --fresh to start again."
            ) from error

    def finish(self, step: str, record: Record) -> None:
        """Makes a step count; its other files must be in place."""
        write_text(self.record(step), json.dumps(attrs.asdict(record), indent=2) + "\n")

    def tidy(self, step: str, results: Results) -> None:
        """What follows from a finished step: the table, and no epoch's checkpoint."""
        self.epoch(step).unlink(missing_ok=True)
        json_name, markdown_name = _RESULTS
        write_text(self.path / json_name, results.to_json())
        write_text(self.path / markdown_name, results.to_markdown())

    def _is_run(self) -> bool:
        """Whether a run was started here, be it that it was killed before it stored its recipe."""
        if not (self.path / _ENVIRONMENT).exists():
            return False
        names = {entry.name for entry in self.path.iterdir() if not entry.name.endswith(".tmp")}
        return _RECIPE in names or names <= {_LOCK, _ENVIRONMENT}

    def _remove_leftovers(self) -> None:
        """What a killed run was writing."""
        for name in (_RECIPE, _ENVIRONMENT, *_RESULTS):
            for path in self.path.glob(f".{name}.*.tmp"):
                path.unlink()
        for folder in (self.path / "steps", self.deployed):
            remove_leftovers(folder)

    def _clear(self) -> None:
        """Removes a run's own files, and nothing else."""
        for folder, own in ((self.path / "steps", _STEP_FILE), (self.deployed, _DEPLOYED)):
            for path in folder.iterdir() if folder.is_dir() else ():
                if not own.fullmatch(path.name):
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            with contextlib.suppress(OSError):  # not there, or it holds something else
                folder.rmdir()
        for name in (*_RESULTS, _RECIPE):
            (self.path / name).unlink(missing_ok=True)


_STEP_FILE = re.compile(r"\d\d-[a-z]+\.(json|safetensors|packed\.safetensors|epoch\.pt)")
_DEPLOYED = re.compile(r"\d\d-.+")


def packed_file(path: Path | str) -> Path:
    """The packed model of a run: its last one, or that of the step whose checkpoint is given.

    Raises:
        DataError: There is none: no run, or no quantized model in it.
    """
    path = Path(path)
    steps = path / "steps" if path.is_dir() else path.parent
    if not path.exists() or not steps.is_dir():
        raise DataError(f"There is no run at {path}.")
    step = "*" if path.is_dir() else path.name.partition(".")[0]
    found = sorted(
        file
        for file in steps.glob(f"{step}.packed.safetensors")
        if (steps / f"{file.name.partition('.')[0]}.json").exists()
    )
    if not found:
        raise DataError(f"{path} holds no quantized model that could be packed.")
    return found[-1]


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def _with_newer_options(recipe: Any) -> Any:
    """A stored recipe with the options that its techniques have got since, at their defaults."""
    try:
        return to_plain(resolve(structure(Source(_RECIPE, recipe, {}, Path()))).recipe)
    except MicronetError:
        return recipe


def _changes(old: Any, new: Any, at: str = "") -> list[str]:
    """Where two recipes differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(key, old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [f"{at} was {_short(old)}, is now {_short(new)}"]
    return [change for key, a, b in pairs for change in _changes(a, b, f"{at}.{key}".lstrip("."))]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries"
    return json.dumps(value)
