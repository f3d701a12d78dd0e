"""Engines outside a run: deploying what a run or a packed file holds, and evaluating it."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from micronet.deployment.engine import load_engine
from micronet.deployment.parity import Parity, compare
from micronet.errors import DataError, DeployError, RecipeError
from micronet.pipeline.artifact_folders import refuse_others_files
from micronet.pipeline.data import checked_sets, with_classes
from micronet.pipeline.deployment import build_engine, export, run_engine, simulate
from micronet.pipeline.folder import RunFolder
from micronet.pipeline.progress import Reporter
from micronet.pipeline.stored import Stored, find
from micronet.recipe import Deploy, Named
from micronet.recipe.resolution import resolve_data, resolve_deployment
from micronet.storage.files import replacing_directory
from micronet.techniques import Artifact
from micronet.techniques.deploy_backend import FLOAT
from micronet.training.loop import first_without_class


@attrs.frozen
class Deployed:
    """What `micronet deploy` wrote.

    Args:
        artifact: The engine's folder.
        source: What was deployed.
        size_mb: Megabytes (10^6 bytes) of the engine's file.
        float_size_mb: The same of the float model's; `None` where there is no float model.
        accuracy: Of the engine, on the test set.
        parity: Of engine and simulation there.
        images: In the test set.
        remarks: What a user should hear, a sentence each.
    """

    artifact: str
    source: str
    size_mb: float
    float_size_mb: float | None
    accuracy: float
    parity: Parity
    images: int
    remarks: tuple[str, ...]


@attrs.frozen
class Evaluation:
    """An engine on a data set.

    Args:
        images: How many.
        accuracy: Of the engine.
        torch_accuracy: Of the torch model that it is compared with; `None` without one.
        parity: Of the two.
        against: That model.
        remarks: What a user should hear, a sentence each.
    """

    images: int
    accuracy: float
    torch_accuracy: float | None = None
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

    Raises:
        MicronetError: What can't be done, in words; `out` is then as it was.
    """
    stored = find(path, cpu=cpu, model=model, data=data)
    backend, remarks = resolve_deployment(stored.recipe, step)
    out = Path(out) if out else _default_folder(stored, step.backend)
    refuse_others_files(out)
    simulated, labels = simulate(stored.model, stored.sets[1], accelerator=stored.accelerator)
    title = f"deploy {step.backend}"
    with _reporter().step(title) as bar, replacing_directory(out) as temporary:
        engine = build_engine(
            step,
            backend,
            stored.model,
            temporary,
            stored.example_inputs,
            stored.sets[1],
            simulated,
            bar,
        )
        source = _source_of(stored, out)
        attrs.evolve(engine.artifact, source=source).write_card()
        size_mb, float_size_mb = engine.artifact.size_bytes / 1e6, None
        if stored.float_model is not None:
            float_artifact = export(
                backend.for_float(),
                stored.float_model,
                stored.example_inputs,
                temporary / FLOAT,
                step,
            )
            float_size_mb = float_artifact.size_bytes / 1e6
    return Deployed(
        str(out),
        str(stored.path),
        size_mb,
        float_size_mb,
        _accuracy(engine.outputs, labels),
        engine.parity,
        len(labels),
        (*stored.remarks, *remarks, *engine.artifact.remarks),
    )


def evaluate_artifact(
    directory: Path | str,
    data: Named,
    against: Path | str | None = None,
    *,
    cpu: bool = False,
    model: str | None = None,
) -> Evaluation:
    """Measures an engine and the torch model that it was made from on the test set of some data.

    Args:
        directory: The artifact's folder.
        data: As a recipe names it.
        against: Another torch model to compare with, as `micronet.pipeline.stored.find` takes it.
        cpu: Keep torch on the CPU where there is a GPU.
        model: As `find` takes it, for a packed file.

    Raises:
        MicronetError: Something is missing, or the engine can't run on such images.
    """
    directory = Path(directory)
    artifact = Artifact.read(directory)
    sets = checked_sets(resolve_data(data)(), data.name)
    runner = load_engine(artifact)
    stored, remarks = None, []
    if against is not None:
        stored = find(against, cpu=cpu, sets=sets, model=model)
    else:
        try:
            stored = find(_source(artifact), cpu=cpu, sets=sets, model=model)
        except (DataError, RecipeError) as error:
            remarks.append(f"Compared with no torch model: {error} --against may name one.")
    with _reporter().step(artifact.backend) as bar:
        outputs = run_engine(runner, artifact, sets[1], bar)
    if (place := first_without_class(torch.from_numpy(outputs))) is not None:
        raise DeployError(f"{directory} gives NaN or Inf for test image {place}, so no class.")
    if stored is None:
        _, test_set = with_classes(sets, outputs.shape[1])
        labels = np.array([test_set[place][1] for place in range(len(outputs))])
        return Evaluation(len(labels), _accuracy(outputs, labels), remarks=tuple(remarks))
    simulated, labels = simulate(stored.model, sets[1], accelerator=stored.accelerator)
    if simulated.shape != outputs.shape:
        raise DeployError(
            f"{stored.path} gives {simulated.shape[1]} classes, the engine {outputs.shape[1]}."
        )
    return Evaluation(
        len(labels),
        _accuracy(outputs, labels),
        _accuracy(simulated, labels),
        compare(stored.model, simulated, outputs),
        str(stored.path),
    )


def _source(artifact: Artifact) -> Path:
    """The model that an artifact was made from, which its card may only name beside it.

    Raises:
        DataError: The card names none, or one that lies elsewhere.
    """
    if artifact.source is None:
        raise DataError("the artifact names none.")
    folder = artifact.directory.resolve()
    root = folder.parents[1] if folder.parent.name == "deploy" else folder.parent
    source = Path(os.path.normpath(artifact.directory / artifact.source))
    if not source.resolve().is_relative_to(root):
        raise DataError(f"the artifact's card names {source}, which is not of the same run.")
    return source


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(1) == labels).mean())


def _default_folder(stored: Stored, backend: str) -> Path:
    backend = backend.replace(":", "-")
    if stored.float_model is None:
        return stored.root / f"{stored.name}-{backend}"
    RunFolder(stored.root).refuse_links()
    return stored.root / "deploy" / f"{stored.name}-{backend}"


def _source_of(stored: Stored, out: Path) -> str:
    """The card's `source`: relative where both move together."""
    root, folder = stored.root.resolve(), out.resolve()
    path = stored.path.resolve()
    return os.path.relpath(path, folder) if folder.is_relative_to(root) else str(path)


def _reporter() -> Reporter:
    return Reporter(Console(stderr=True))
