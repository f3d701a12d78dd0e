"""A run's folder: what is finished, and how it got there."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from filelock import FileLock, Timeout

from micronet.errors import DataError, RecipeError, RunError
from micronet.pipeline import own_runs
from micronet.pipeline.artifact_folders import files_in
from micronet.pipeline.results import Results, Row
from micronet.plain import structured
from micronet.recipe import Recipe, plain_yaml, step_name
from micronet.recipe.file import Source, structure
from micronet.storage.files import (
    check_sums,
    read_json,
    read_text,
    sha256,
    sum_of_json,
    write_json,
    write_text,
    writing,
)

LOCK = ".lock"
RESULTS = ("results.json", "results.md")
START_AGAIN = "--fresh starts the run again."
_LOST = f"Put it back. {START_AGAIN}"


@attrs.frozen
class Start:
    """The account of a run's start.

    Args:
        environment: Where it took place.
        recipe_sum: Of its recipe; see `micronet.storage.files.sum_of_json`.
        signature: Of its recipe, by the user who started it; `None` if he could keep no key.
        micronet_run: The form of the run's files.
    """

    environment: dict[str, Any]
    recipe_sum: str
    signature: str | None
    micronet_run: Literal[1] = 1


_OF_THE_RUN = ("micronet_run", "recipe_sum", "signature")
"""What the account says beside the environment."""


@attrs.frozen
class Record:
    """What a finished step leaves beside its weights.

    Args:
        row: Its measurements, `None` if the step measures nothing.
        plan: What a prune step kept, as `PruningPlan.to_json` writes it.
        remarks: What to say about its timings, a sentence each; another time it may be another.
        files: SHA-256 of each file that the step wrote beside the record, by its path in the run.
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
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

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
        lock = FileLock(self.path / LOCK)
        with writing(self.path / LOCK):
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

    def refuse_links(self) -> None:
        """Raises a RunError where a folder of the run's is a link out of it."""
        for folder in (self.path / "steps", self.deployed):
            if folder.is_symlink():
                raise RunError(
                    f"{folder} is a link, and a run keeps its files in its own folder. Remove the "
                    f"link, or choose another --out."
                )

    def start(self) -> Start | None:
        """The account of the run's last start, `None` before the first; raises DataError."""
        file, what = self.environment_file, "account of a run's start"
        try:
            environment = read_json(file, dict[str, Any], what)
        except FileNotFoundError:
            return None
        own = {key: environment.pop(key, None) for key in _OF_THE_RUN}
        try:
            return structured({**own, "environment": environment}, Start)
        except DataError as error:
            raise DataError(f"{file} is no readable {what}: {error}.") from error

    def write_start(self, environment: Mapping[str, Any], recipe: Any) -> None:
        """Writes down where a run of a recipe begins or goes on, and whose it is."""
        start = Start(dict(environment), sum_of_json(recipe), own_runs.signature(recipe))
        own = {key: getattr(start, key) for key in _OF_THE_RUN}
        write_json(self.environment_file, {**own, **start.environment})

    def stored_recipe(self) -> dict[str, Any] | None:
        """The run's recipe, `None` if there is none; raises DataError where it can't be read."""
        if not os.path.lexists(self.recipe_file):
            return None
        try:
            content, _ = plain_yaml.load(read_text(self.recipe_file), str(self.recipe_file))
        except (DataError, RecipeError) as error:
            raise DataError(f"{str(error).rstrip('.')}. {START_AGAIN}") from error
        if not isinstance(content, dict):
            raise DataError(f"{self.recipe_file} holds no recipe. {START_AGAIN}")
        return content

    def is_own(self) -> bool:
        """Whether this user has started the run, on this machine; raises DataError."""
        start = self.start()
        return start is not None and own_runs.is_own(self.stored_recipe(), start.signature)

    def recipe(self) -> tuple[Recipe, bool]:
        """The run's recipe, and whether `is_own`.

        Raises:
            DataError: There is none, or it was changed.
        """
        content, start = self.stored_recipe(), self.start()
        if content is None:
            raise DataError(f"There is no run at {self.path}.")
        if start is not None and sum_of_json(content) != start.recipe_sum:
            raise DataError(f"{self.recipe_file} was changed since it was written. {_LOST}")
        recipe = structure(Source(str(self.recipe_file), content, {}, self.path))
        return recipe, self.is_own()

    def finished(self, step: str) -> Record | None:
        """A step's record, `None` if the step is not finished."""
        try:
            return read_json(self.record(step), Record, "record of a step")
        except FileNotFoundError:
            return None
        except DataError as error:
            raise DataError(f"{error} {START_AGAIN}") from error

    def records(self, steps: Sequence[str]) -> list[Record]:
        """The records of those among a run's first steps that are finished.

        Args:
            steps: From the first one on.

        Raises:
            DataError: One is lost that later ones build on, or can't be read.
        """
        records = [self.finished(step) for step in steps]
        done = [record for record in records if record is not None]
        for step, record in zip(steps, records[: len(done)], strict=False):
            if record is None:
                raise DataError(f"{self.record(step)} is lost, and later ones are there. {_LOST}")
        return done

    def check_files(self, steps: Sequence[str]) -> None:
        """Makes sure that what finished steps wrote is there, as they wrote it.

        Args:
            steps: As `records` takes them.

        Raises:
            DataError: A file or a record is lost or was changed.
        """
        for record in self.records(steps):
            check_sums(self.path, record.files, _LOST)

    def weights_after(self, steps: Sequence[str]) -> Path | None:
        """The weights that the last of these steps to write some has left.

        Args:
            steps: As `records` takes them.

        Returns:
            A file that is as it was written; `None` if none of them is finished.

        Raises:
            DataError: It is lost, or was changed.
        """
        done = list(zip(steps, self.records(steps), strict=False))
        for step, record in reversed(done):
            if self._check(self.weights(step), record):
                return self.weights(step)
        if done:
            raise DataError(
                f"{self.record(done[-1][0])} names no weights, so they would be random. "
                f"{START_AGAIN}"
            )
        return None

    def packed_after(self, steps: Sequence[str]) -> Path | None:
        """The same for packed models; `None` if none of these steps wrote one."""
        for step in reversed(steps):
            record = self.finished(step)
            if record is not None and self._check(self.packed(step), record):
                return self.packed(step)
        return None

    def _check(self, path: Path, record: Record) -> bool:
        """Whether a step wrote a file; raises DataError where that is no longer as it was."""
        name = path.relative_to(self.path).as_posix()
        if name not in record.files:
            return False
        check_sums(self.path, {name: record.files[name]}, _LOST)
        return True

    def finish(self, step: str, record: Record) -> None:
        """Makes a step count; its other files must be in place."""
        written = [path for path in (self.weights(step), self.packed(step)) if path.exists()]
        if record.row is not None and record.row.artifact is not None:
            written += files_in(self.path / record.row.artifact)
        sums = {path.relative_to(self.path).as_posix(): sha256(path) for path in written}
        write_json(self.record(step), attrs.asdict(attrs.evolve(record, files=sums)))

    def tidy(self, step: str, results: Results) -> None:
        """What follows from a finished step: the table, and no epoch's checkpoint."""
        self.epoch(step).unlink(missing_ok=True)
        json_name, markdown_name = RESULTS
        write_text(self.path / json_name, results.to_json())
        write_text(self.path / markdown_name, results.to_markdown())


START = "00-model"
"""Name of the row for the model that a recipe starts with, where it is not trained first."""


def artifact_name(number: int, backend: str) -> str:
    """The folder of what a deploy step writes."""
    return step_name(number, backend.replace(":", "-"))


def steps_of(recipe: Any) -> list[tuple[str, Any]]:
    """The key and the options of each step of a recipe, as it was read back, of whatever shape."""
    steps = recipe.get("steps") if isinstance(recipe, dict) else None
    pairs = [
        next(iter(step.items()), ("", None)) if isinstance(step, dict) else (step, None)
        for step in (steps if isinstance(steps, list) else [])
    ]
    return [(str(key), options) for key, options in pairs]
