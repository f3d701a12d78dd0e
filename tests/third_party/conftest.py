"""Third parties' packages, installed by pip into virtual environments of their own."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parent


class Environment:
    """A virtual environment that sees the packages of this one, and installs its own."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        self.executable = venv / "bin" / "python"
        (site,) = venv.glob("lib/python*/site-packages")
        # Packages of an editable install are found through this one's own .pth files.
        outer = [sysconfig.get_paths()["purelib"], *filter(os.path.isdir, sys.path)]
        (site / "outer.pth").write_text("\n".join(dict.fromkeys(outer)), "utf-8")

    def install(self, *sources: Path) -> None:
        """pip, without a network."""
        flags = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        self._pip("install", *flags, *map(str, sources))

    def uninstall(self, distribution: str) -> None:
        self._pip("uninstall", "--quiet", "--yes", distribution)

    def run(
        self, arguments: Iterable[str], env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            [self.executable, *arguments],
            cwd=self.work,
            env={**inherited, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def micronet(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(["-m", "micronet", *arguments], env)

    def entries(self, *arguments: str) -> list[dict]:
        """What `list-plugins --json` prints."""
        done = self.micronet(*arguments, "list-plugins", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _pip(self, command: str, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", self.executable, command]
        done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory):
    return lambda name: Environment(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder of the packages."""
    return PACKAGES
