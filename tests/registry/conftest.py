"""Third-party distributions as pip leaves them: a package beside a dist-info folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

GROUP = "micronet.plugins.v1"

Process = subprocess.CompletedProcess[str]


class Site:
    """A folder on the path of every command that it starts, as site-packages is."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder = folder
        self.work = work

    def install(
        self,
        distribution: str,
        plugin: str,
        *,
        files: Mapping[str, str] | None = None,
        point: str | None = None,
        group: str = GROUP,
        requires: Sequence[str] = (),
        extras: Sequence[str] = (),
    ) -> None:
        """Installs a package named like the distribution, whose `__init__` is `plugin`."""
        name = distribution.replace("-", "_").lower()
        package = self.folder / name
        package.mkdir(parents=True)
        for file, code in {"__init__.py": plugin, **(files or {})}.items():
            (package / file).write_text(code)
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {distribution}",
            "Version: 1.0",
            *(f"Provides-Extra: {extra}" for extra in extras),
            *(f"Requires-Dist: {requirement}" for requirement in requires),
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{point or name} = {name}\n")

    def micronet(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Runs the `micronet` command."""
        return self._run(["-m", "micronet", *arguments], env)

    def python(self, code: str) -> Process:
        """Runs Python code."""
        return self._run(["-c", code], None)

    def entries(self, *arguments: str, env: Mapping[str, str] | None = None) -> list[Any]:
        """What `list-plugins --json` prints."""
        done = self.micronet("list-plugins", "--json", *arguments, env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _run(self, arguments: Iterable[str], env: Mapping[str, str] | None) -> Process:
        path = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.work,
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def make_site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Site]:
    def make() -> Site:
        return Site(tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work"))

    return make


@pytest.fixture
def site(make_site: Callable[[], Site]) -> Site:
    return make_site()


HOOK = """
from micronet.hookspecs import hookimpl
from micronet.techniques import Technique

@hookimpl
def micronet_{kind}s():
    return [Technique({name!r}, {summary!r}, {target!r}, extra={extra!r})]
"""


@pytest.fixture
def hook():
    """The code of a plugin that brings one technique."""

    def code(kind, name, target, *, summary="Third-party work.", extra=None):
        return HOOK.format(kind=kind, name=name, target=target, summary=summary, extra=extra)

    return code


@pytest.fixture
def quantizer():
    """The code of a complete quantizer, `technique.py` with the class Lsq."""
    return """
import attrs
from micronet.options import option
from micronet.techniques import Quantizer

@attrs.frozen(kw_only=True)
class Lsq(Quantizer):
    '''Learned step sizes.'''

    bits: int = option(4, ge=2, le=8, doc="Width of the codes.")

    def prepare(self, model, example_inputs):
        return model
"""
