"""How a run begins in its folder: what may be there, what goes on, what is forgotten."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micronet.errors import DataError, MicronetError, RunError
from micronet.pipeline.artifact_folders import refuse_others_files
from micronet.pipeline.folder import (
    LOCK,
    RESULTS,
    START,
    RunFolder,
    artifact_name,
    steps_of,
)
from micronet.recipe import plain_yaml, step_name, to_plain
from micronet.recipe.file import Source, structure
from micronet.recipe.resolution import resolve
from micronet.recipe.sources import ROLES
from micronet.storage.files import remove, remove_leftovers, write_text


def check_folder(folder: RunFolder) -> None:
    """Refuses, with a RunError, any but an empty folder or one in which a run was started."""
    folder.refuse_links()
    names = {entry.name for entry in folder.path.iterdir()}
    if names <= {LOCK}:
        return
    try:
        started, why = folder.start() is not None, "that are no run's"
    except DataError as error:
        started, why = False, f"that are no run's: {str(error).rstrip('.')}"
    names = {name for name in names if not name.endswith(".tmp")}
    # It may have been killed before it stored its recipe.
    unstored = names <= {LOCK, folder.environment_file.name}
    if started and not (unstored or folder.recipe_file.name in names):
        started, why = False, f"of a run whose {folder.recipe_file.name} is lost"
    if not started:
        raise RunError(f"{folder.path} holds files {why}. Choose another --out.")


def open_folder(
    folder: RunFolder, recipe: dict[str, Any], environment: Mapping[str, Any], *, fresh: bool
) -> None:
    """Prepares a run's folder for a recipe's first or next start.

    Args:
        folder: As `check_folder` lets it through, with its lock held.
        recipe: As plain data.
        environment: Where the run takes place.
        fresh: Forget a run that is there.

    Raises:
        RunError: It holds a run of another recipe.
        DeployError: A fresh start would remove somebody's files.
    """
    before = None
    with contextlib.suppress(*((DataError,) if fresh else ())):  # then it is forgotten
        before = folder.stored_recipe()
    if fresh:
        for of_recipe in (before, recipe):
            _refuse_to_remove_others_files(folder, of_recipe)
    for of_recipe in (before, recipe):
        for place, own in _own_files(folder, of_recipe).items():
            remove_leftovers(place, own)  # what a killed run was writing
            if fresh:
                _clear(folder, place, own)
    if fresh:
        before = None
    if before not in (None, recipe) and (
        changes := _changes(_with_newer_options(folder, before), recipe)
    ):
        raise RunError(
            f"{folder.path} holds a run of another recipe: {'; '.join(changes[:3])}. Use "
            f"--fresh to start again, or another --out."
        )
    kept = recipe if before is None else before
    # In this order: a folder with a recipe alone may be a user's own.
    folder.write_start(environment, kept)
    if before is None:
        write_text(folder.recipe_file, plain_yaml.dump(recipe))


def _refuse_to_remove_others_files(folder: RunFolder, recipe: Any) -> None:
    for place, own in _own_files(folder, recipe).items():
        for path in (place / name for name in own):
            if place == folder.deployed:
                refuse_others_files(path)
            elif path.is_dir() and not path.is_symlink():
                raise RunError(
                    f"{path} is a folder where a run has a file, so --fresh does not remove it. "
                    f"Move it, or choose another --out."
                )


def _clear(folder: RunFolder, place: Path, own: list[str]) -> None:
    """Removes a run's own files, and nothing else."""
    for name in own:
        if place / name != folder.environment_file:
            remove(place / name)
    if place != folder.path:
        with contextlib.suppress(OSError):  # not there, or it holds something else
            place.rmdir()


def _own_files(folder: RunFolder, recipe: Any) -> dict[Path, list[str]]:
    """What a run of a recipe may have written, by folder; no name leads out of it."""
    steps = list(enumerate(steps_of(recipe), 1))
    written = [START, *(step_name(number, key) for number, (key, _) in steps)]
    deployed = [
        artifact_name(number, str(options.get("backend")))
        for number, (key, options) in steps
        if key == "deploy" and isinstance(options, dict)
    ]
    of_steps = [
        path(name).name
        for name in written
        for path in (folder.record, folder.weights, folder.packed, folder.epoch)
    ]
    return {
        folder.path / "steps": of_steps,
        folder.deployed: [name for name in deployed if Path(name).name == name],
        folder.path: [*RESULTS, folder.recipe_file.name, folder.environment_file.name],
    }


def _with_newer_options(folder: RunFolder, recipe: dict[str, Any]) -> Any:
    """A stored recipe with the options that its techniques have got since, at their defaults.

    What a recipe names that is not this user's own stays a name.
    """
    trusted = ROLES if folder.is_own() else ()
    try:
        stored = structure(Source("recipe.yaml", recipe, {}, Path()))
        return to_plain(resolve(stored, trusted=trusted).recipe)
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
