"""Engines of deployed models, by the artifact alone; nothing here needs torch."""

from __future__ import annotations

from pathlib import Path

from micronet import registry
from micronet.errors import DeployError
from micronet.techniques import Artifact, Runner


def load_engine(artifact: Artifact | Path | str, *, threads: int | None = None) -> Runner:
    """An artifact's engine, ready to run.

    Args:
        artifact: Of any backend, or its folder.
        threads: Threads it may use; `None` lets the engine choose.

    Raises:
        PluginError: The backend is not installed.
        DeployError: The engine can't be used here, or can't load the file.
    """
    if not isinstance(artifact, Artifact):
        artifact = Artifact.read(artifact)
    artifact.check_files()
    backend = registry.create("deploy_backend", artifact.backend)
    reason = backend.available()
    if reason is not None:
        raise DeployError(f"{artifact.backend} can't run here: {reason}.")
    runner: Runner = backend.load(artifact, threads=threads)
    return runner
