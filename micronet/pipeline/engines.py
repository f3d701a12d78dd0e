"""Engines outside a run: deploying what a run or a packed file holds, and evaluating it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs
import torch
from rich.console import Console

from micronet.deployment.engine import load_engine
from micronet.deployment.parity import Parity
from micronet.errors import DataError, DeployError, RecipeError, RunError
from micronet.pipeline.artifact_folders import refuse_others_files
from micronet.pipeline.data import Sets, checked_sets, for_task
from micronet.pipeline.deployment import (
    build_engine,
    engine_outputs,
    export,
    known_input,
    run_engine,
    task_on_card,
)
from micronet.pipeline.folder import RunFolder
from micronet.pipeline.image_facts import image_facts
from micronet.pipeline.progress import Reporter
from micronet.pipeline.stored import Stored, find
from micronet.recipe import CLASSIFICATION, Deploy, Named
from micronet.recipe.own_code import refuse_unnamed
from micronet.recipe.resolution import (
    known_contents,
    resolve_data,
    resolve_deployment,
    resolve_task,
)
from micronet.recipe.sources import TASK
from micronet.storage.files import replacing_directory
from micronet.techniques import Artifact, Figure, Runner, Task
from micronet.techniques.deploy_backend import FLOAT


@attrs.frozen
class Deployed:
    """What `micronet deploy` wrote.

    Args:
        artifact: The engine's folder.
        source: What was deployed.
        size_mb: Megabytes (10^6 bytes) of the engine's file.
        float_size_mb: The same of the float model's; `None` where there is no float model.
        main: The main one of the task's figures.
        figures: Of the engine, on the test set, by name.
        agreement: How far the answers of engine and simulation agree there.
        parity: How far their outputs are apart.
        images: In the test set.
        remarks: What a user should hear, a sentence each.
    """

    artifact: str
    source: str
    size_mb: float
    float_size_mb: float | None
    main: Figure
    figures: Mapping[str, float]
    agreement: float
    parity: Parity
    images: int
    remarks: tuple[str, ...]


@attrs.frozen
class Evaluation:
    """An engine on a data set.

    Args:
        images: How many.
        main: The main one of the task's figures.
        figures: Of the engine, by name.
        torch_figures: Of the torch model that it is compared with; `None` without one.
        agreement: How far the answers of the two agree.
        parity: How far their outputs are apart.
        against: That model.
        remarks: What a user should hear, a sentence each.
    """

    images: int
    main: Figure
    figures: Mapping[str, float]
    torch_figures: Mapping[str, float] | None = None
    agreement: float | None = None
    parity: Parity | None = None
    against: str | None = None
    remarks: tuple[str, ...] = ()


def deploy_stored(
    path: Path | str,
    step: Deploy,
    out: Path | str | None = None,
    *,
    cpu: bool = False,
    model: str | None = None,
    data: str | None = None,
    task: str | None = None,
) -> Deployed:
    """Deploys a model of a run or a packed file, and compares its engine with the simulation.

    Args:
        path: As `micronet.pipeline.stored.find` takes it.
        step: How, as a recipe says it.
        out: The artifact's folder, which takes the place of an artifact that is there; in the run's
            `deploy`, or beside the packed file, if not given.
        cpu: Stay on the CPU where there is a GPU.
        model: As `find` takes it.
        data: As `find` takes it.
        task: As `find` takes it.

    Raises:
        MicronetError: What can't be done, in words; `out` is then as it was.
    """
    stored = find(path, cpu=cpu, model=model, data=data, task=task)
    backend, remarks = resolve_deployment(stored.recipe, step)
    out = Path(out) if out else _default_folder(stored, step.backend)
    refuse_others_files(out)
    contents = known_contents(stored.recipe.data)
    given = known_input(step, contents, stored.example_inputs[0])
    title = f"deploy {step.backend}"
    with _reporter().step(title) as bar, replacing_directory(out) as temporary:
        engine = build_engine(
            step,
            backend,
            stored.model,
            temporary,
            stored.example_inputs,
            stored.sets[1],
            bar,
            given,
        )
        source = _source_of(stored, out)
        meant = task_on_card(stored.recipe.task, stored.task)
        images = image_facts(stored.sets[1], contents)
        attrs.evolve(engine.artifact, source=source, task=meant, images=images).write_card()
        size_mb, float_size_mb = engine.artifact.size_bytes / 1e6, None
        if stored.float_model is not None:
            float_artifact = export(
                backend.for_float(),
                stored.float_model,
                stored.example_inputs,
                temporary / FLOAT,
                step,
                given,
            )
            float_size_mb = float_artifact.size_bytes / 1e6
    ran = engine.ran
    assert ran.parity is not None
    assert ran.agreement is not None
    return Deployed(
        str(out),
        str(stored.path),
        size_mb,
        float_size_mb,
        stored.task.figures[0],
        ran.figures,
        ran.agreement,
        ran.parity,
        ran.images,
        (*stored.remarks, *remarks, *engine.artifact.remarks),
    )


def evaluate_artifact(
    directory: Path | str,
    data: Named,
    against: Path | str | None = None,
    *,
    cpu: bool = False,
    model: str | None = None,
    task: str | None = None,
) -> Evaluation:
    """Measures an engine and the torch model that it was made from on the test set of some data.

    Args:
        directory: The artifact's folder.
        data: As a recipe names it.
        against: Another torch model to compare with, as `micronet.pipeline.stored.find` takes it.
        cpu: Keep torch on the CPU where there is a GPU.
        model: As `find` takes it, for a packed file.
        task: As a recipe names it; the artifact's own if not given.

    Raises:
        MicronetError: Something is missing, or the engine can't run on such images.
    """
    directory = Path(directory)
    artifact = Artifact.read(directory)
    meant = resolve_task(_task_of(artifact, task), trusted=[TASK] if task else [])
    refuse_unnamed(f"{directory}", meant)
    sets = checked_sets(resolve_data(data)(), data.name, meant)
    runner = load_engine(artifact)
    stored, remarks = None, []
    if against is not None:
        stored = find(against, cpu=cpu, sets=sets, model=model, task=task)
    else:
        try:
            stored = find(_source(artifact), cpu=cpu, sets=sets, model=model, task=task)
        except (DataError, RecipeError) as error:
            remarks.append(f"Compared with no torch model: {error} --against may name one.")
    test_set = for_task(sets, _fitted(meant, runner, artifact, sets))[1]
    if artifact.images is not None:
        remarks += filter(None, [artifact.images.unlike(image_facts(test_set))])
    with _reporter().step(artifact.backend) as bar:
        ran = run_engine(
            runner, artifact, test_set, bar, model=None if stored is None else stored.model
        )
    return Evaluation(
        ran.images,
        test_set.task.figures[0],
        ran.figures,
        ran.simulated,
        ran.agreement,
        ran.parity,
        None if stored is None else str(stored.path),
        tuple(remarks),
    )


def _task_of(artifact: Artifact, given: str | None) -> Named:
    """The task that is given, or that an artifact's card names; else classification."""
    if given is not None:
        return Named(given)
    card = dict(artifact.task or {"name": CLASSIFICATION})
    return Named(str(card.pop("name", "")), card)


def _fitted(task: Task, runner: Runner, artifact: Artifact, sets: Sets) -> Task:
    images = torch.stack([sets[1][place][0] for place in (0, 1)])
    try:
        return task.fitted(engine_outputs(runner, artifact, images))
    except RunError as error:
        raise DeployError(f"{artifact.directory} {error}.") from error


def _source(artifact: Artifact) -> Path:
    """The model that an artifact was made from, which its card may only name beside it.

    Raises:
        DataError: The card names none, or one that lies elsewhere.
    """
    if artifact.source is None:
        raise DataError("the artifact names none.")
    folder = _real(artifact.directory)
    root = folder.parents[1] if folder.parent.name == "deploy" else folder.parent
    source = Path(os.path.normpath(artifact.directory / artifact.source))
    if not _real(source).is_relative_to(root):
        raise DataError(f"the artifact's card names {source}, which is not of the same run.")
    return source


def _real(path: Path) -> Path:
    """Without links; unlike `Path.resolve` it takes a circle of them as it is."""
    return Path(os.path.realpath(path))


def _default_folder(stored: Stored, backend: str) -> Path:
    backend = backend.replace(":", "-")
    if stored.float_model is None:
        return stored.root / f"{stored.name}-{backend}"
    RunFolder(stored.root).refuse_links()
    return stored.root / "deploy" / f"{stored.name}-{backend}"


def _source_of(stored: Stored, out: Path) -> str:
    """The card's `source`: relative where both move together."""
    root, folder = _real(stored.root), _real(out)
    path = _real(stored.path)
    return os.path.relpath(path, folder) if folder.is_relative_to(root) else str(path)


def _reporter() -> Reporter:
    return Reporter(Console(stderr=True))
