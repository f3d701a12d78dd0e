"""A run's folder: what is finished, and how it got there."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml
from filelock import FileLock, Timeout

from micronet.errors import DataError, MicronetError, RecipeError, RunError
from micronet.pipeline.results import Results, Row
from micronet.recipe import plain_yaml, to_plain
from micronet.recipe.file import Source, structure
from micronet.recipe.resolution import resolve
from micronet.storage.files import (
    check_sums,
    read_json,
    read_text,
    remove,
    remove_leftovers,
    sha256,
    write_text,
    writing,
)

_RECIPE, _ENVIRONMENT, _LOCK = "recipe.yaml", "environment.json", ".lock"
_RESULTS = ("results.json", "results.md")
_RUN, FORMAT = "micronet_run", 1
"""What the account of a run's start says of itself."""

_START_AGAIN = "--fresh starts the run again."


@attrs.frozen
class Record:
    """What a finished step leaves beside its weights.

    Args:
        row: Its measurements, `None` if the step measures nothing.
        plan: What a prune step kept, as `PruningPlan.to_json` writes it.
        remarks: What to say about its timings, a sentence each; another time it may be another.
        files: SHA-256 of each file that the step wrote beside the record, by its name.
    """

    row: Row | None
    plan: str | None = None
    remarks: Sequence[str] = ()
    files: Mapping[str, str] = attrs.field(factory=dict)


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
        for folder in (self.path / "steps", self.deployed):
            if folder.is_symlink():
                raise RunError(
                    f"{folder} is a link, and a run keeps its files in its own folder. Remove the "
                    f"link, or choose another --out."
                )
        stored = self.path / _RECIPE
        before = None
        with contextlib.suppress(*((DataError,) if fresh else ())):  # then it is forgotten
            before = _read_yaml(stored) if stored.exists() else None
        for of_recipe in (before, recipe):
            self._remove_leftovers(of_recipe)
            if fresh:
                self._clear(of_recipe)
        if fresh:
            before = None
        elif stored.exists() and not isinstance(before, dict):
            raise RunError(f"{stored} holds no recipe. {_START_AGAIN}")
        if before not in (None, recipe) and (
            changes := _changes(_with_newer_options(before), recipe)
        ):
            raise RunError(
                f"{self.path} holds a run of another recipe: {'; '.join(changes[:3])}. Use "
                f"--fresh to start again, or another --out."
            )
        # In this order: a folder with a recipe alone may be a user's own.
        content = {_RUN: FORMAT, **environment}
        write_text(self.path / _ENVIRONMENT, json.dumps(content, indent=2) + "\n")
        if before is None:
            write_text(stored, yaml.safe_dump(recipe, sort_keys=False, width=100))

    def environment(self) -> dict[str, Any] | None:
        """Where the run was started before, `None` on the first start."""
        started = self._started()
        return started and {key: value for key, value in started.items() if key != _RUN}

    def _started(self) -> dict[str, Any] | None:
        try:
            return read_json(self.path / _ENVIRONMENT, dict[str, Any], "account of a run's start")
        except FileNotFoundError:
            return None

    def finished(self, step: str) -> Record | None:
        """A step's record, `None` if the step is not finished."""
        try:
            return read_json(self.record(step), Record, "record of a step")
        except FileNotFoundError:
            return None
        except DataError as error:
            raise DataError(f"{error} {_START_AGAIN}") from error

    def weights_after(self, steps: Sequence[str]) -> Path | None:
        """The weights that the last of these steps to write some has left.

        Args:
            steps: From the first one on.

        Returns:
            A file that is as it was written; `None` if none of them is finished.

        Raises:
            DataError: It is lost, or was changed.
        """
        records = [(step, self.finished(step)) for step in steps]
        done = [(step, record) for step, record in records if record is not None]
        for step, record in reversed(done):
            path = self.weights(step)
            if path.name in record.files:
                sums = {path.name: record.files[path.name]}
                check_sums(path.parent, sums, f"Put it back. {_START_AGAIN}")
                return path
        if done:
            raise DataError(
                f"{self.record(done[-1][0])} names no weights, so they would be random. "
                f"{_START_AGAIN}"
            )
        return None

    def finish(self, step: str, record: Record) -> None:
        """Makes a step count; its other files must be in place."""
        written = [path for path in (self.weights(step), self.packed(step)) if path.exists()]
        record = attrs.evolve(record, files={path.name: sha256(path) for path in written})
        write_text(self.record(step), json.dumps(attrs.asdict(record), indent=2) + "\n")

    def tidy(self, step: str, results: Results) -> None:
        """What follows from a finished step: the table, and no epoch's checkpoint."""
        self.epoch(step).unlink(missing_ok=True)
        json_name, markdown_name = _RESULTS
        write_text(self.path / json_name, results.to_json())
        write_text(self.path / markdown_name, results.to_markdown())

    def _is_run(self) -> bool:
        """Whether a run was started here, be it that it was killed before it stored its recipe."""
        try:
            started = (self._started() or {}).get(_RUN) == FORMAT
        except DataError:  # somebody else's file of that name
            return False
        names = {entry.name for entry in self.path.iterdir() if not entry.name.endswith(".tmp")}
        return started and (_RECIPE in names or names <= {_LOCK, _ENVIRONMENT})

    def _remove_leftovers(self, recipe: Any) -> None:
        """What a killed run was writing."""
        for folder, own in self._own_files(recipe).items():
            remove_leftovers(folder, own)

    def _clear(self, recipe: Any) -> None:
        """Removes a run's own files, and nothing else."""
        for folder, own in self._own_files(recipe).items():
            for name in own:
                if name != _ENVIRONMENT:
                    remove(folder / name)
            if folder != self.path:
                with contextlib.suppress(OSError):  # not there, or it holds something else
                    folder.rmdir()

    def _own_files(self, recipe: Any) -> dict[Path, list[str]]:
        """What a run of a recipe may have written, by folder; no name leads out of it."""
        steps = recipe.get("steps") if isinstance(recipe, dict) else None
        written = [START]
        deployed = []
        for number, step in enumerate(steps if isinstance(steps, list) else [], 1):
            pairs = step if isinstance(step, dict) else {step: None}
            key, options = next(iter(pairs.items()), ("", None))
            written.append(step_name(number, str(key)))
            if key == "deploy" and isinstance(options, dict):
                deployed.append(artifact_name(number, str(options.get("backend"))))
        of_steps = [
            path(name).name
            for name in written
            for path in (self.record, self.weights, self.packed, self.epoch)
        ]
        return {
            self.path / "steps": of_steps,
            self.deployed: [name for name in deployed if Path(name).name == name],
            self.path: [*_RESULTS, _RECIPE, _ENVIRONMENT],
        }


START = "00-model"
"""Name of the row for the model that a recipe starts with, where it is not trained first."""


def step_name(number: int, key: str) -> str:
    """A step's name in folder and table.

    >>> step_name(3, "train")
    '03-train'
    """
    return f"{number:02d}-{key}"


def artifact_name(number: int, backend: str) -> str:
    """The folder of what a deploy step writes."""
    return step_name(number, backend.replace(":", "-"))


def packed_file(path: Path | str) -> Path:
    """The packed model of a run: its last one, or that of the step whose checkpoint is given.

    Raises:
        DataError: There is none: no run, or no quantized model in it; or it was changed.
    """
    path = Path(path)
    steps = path / "steps" if path.is_dir() else path.parent
    if not path.exists() or not steps.is_dir():
        raise DataError(f"There is no run at {path}.")
    folder = RunFolder(steps.parent)
    step = "*" if path.is_dir() else glob.escape(path.name.partition(".")[0])
    names = [file.stem for file in steps.glob(f"{step}.json") if file.stem[:2].isdigit()]
    for name in sorted(names, key=_number, reverse=True):
        record, packed = folder.finished(name), folder.packed(name)
        if record is not None and packed.name in record.files:
            check_sums(steps, {packed.name: record.files[packed.name]}, _START_AGAIN)
            return packed
    raise DataError(f"{path} holds no quantized model that could be packed.")


def _number(step: str) -> int:
    digits = step.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else -1


def _read_yaml(path: Path) -> Any:
    try:
        content, _ = plain_yaml.load(read_text(path), str(path))
    except RecipeError as error:
        raise DataError(str(error)) from error
    return content


def _with_newer_options(recipe: Any) -> Any:
    """A stored recipe with the options that its techniques have got since, at their defaults."""
    try:
        stored = structure(Source(_RECIPE, recipe, {}, Path()))
        return to_plain(resolve(stored, imports=False).recipe)
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
