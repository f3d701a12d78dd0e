"""A user's small project, and `micronet` run in it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

HERE = Path(__file__).parent
CliResult = subprocess.CompletedProcess[str]

STEPS = (
    {"train": {"epochs": 3, "batch_size": 32, "lr": 1e-2, "sparsity": 1e-4}},
    {"prune": {"pruner": "normal", "percent": 0.4}},
    {"train": {"epochs": 2, "batch_size": 32, "lr": 5e-3}},
    {"quantize": {"quantizer": "iao"}},
    {"train": {"epochs": 2, "batch_size": 32, "lr": 1e-3}},
    "fuse",
)
_TIMES = ("latency_ms", "float_latency_ms", "speedup", "disturbed")


@attrs.frozen
class Project:
    """A folder with a user's module and a recipe that names it; runs go to `out` in it."""

    folder: Path
    _micronet: Callable[..., CliResult]

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def write_recipe(self, *steps: Any, **others: Any) -> None:
        recipe = {"model": "tiny:model", "data": "tiny:data", **others, "steps": list(steps)}
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")

    def write_longer_recipe(self, *more_steps: Any) -> None:
        """The recipe that a project begins with, with more steps after it."""
        self.write_recipe(*STEPS, *more_steps)

    def run(self, *arguments: str, **environment: str) -> CliResult:
        """`micronet run tiny.yaml --out out`, in a process of its own."""
        return self.micronet("run", "tiny.yaml", "--out", "out", *arguments, **environment)

    def micronet(self, *arguments: str, **environment: str) -> CliResult:
        return self._micronet(self.folder, *arguments, **environment)

    def weights(self) -> dict[str, bytes]:
        """Every file of weights or of an engine, by its name."""
        return {
            name: (self.out / name).read_bytes()
            for name in self.files()
            if name.endswith((".safetensors", ".onnx"))
        }

    def rows(self) -> list[dict[str, Any]]:
        """The rows of results.json, without what a clock measured."""
        rows = json.loads((self.out / "results.json").read_text("utf-8"))["rows"]
        return [{k: v for k, v in row.items() if k not in _TIMES} for row in rows]

    def files(self) -> list[str]:
        """Everything in the run's folder."""
        return sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*"))


MakeProject = Callable[[Path], Project]


@pytest.fixture(scope="session")
def make_project(forked_micronet: Callable[..., CliResult]) -> MakeProject:
    def make(folder: Path) -> Project:
        folder.mkdir(exist_ok=True)
        shutil.copy(HERE / "tiny.py", folder)
        project = Project(folder, forked_micronet)
        project.write_recipe(*STEPS)
        return project

    return make


@pytest.fixture
def project(tmp_path: Path, make_project: MakeProject) -> Project:
    """A project whose recipe trains, prunes, trains, quantizes, trains and fuses: about 2 s."""
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, make_project: MakeProject) -> Project:
    """The same, run to its end and never stopped."""
    return _finished(make_project(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="session")
def whole_deployed_run(
    tmp_path_factory: pytest.TempPathFactory, make_project: MakeProject
) -> Project:
    """The same with a deploy step at its end."""
    project = make_project(tmp_path_factory.mktemp("whole_deployed"))
    project.write_longer_recipe("deploy")
    return _finished(project)


def _finished(project: Project) -> Project:
    result = project.run()
    assert result.returncode == 0, result.stderr
    return project
