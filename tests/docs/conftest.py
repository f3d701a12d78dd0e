"""One whole quickstart, for every test that looks at it."""

import os
from pathlib import Path

import attrs
import pytest
from filelock import FileLock


@attrs.frozen
class Quickstart:
    """The folder in which `micronet run quickstart` ran, and what it printed."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "quickstart"

    @property
    def stdout(self) -> str:
        return (self.folder / "printed.txt").read_text("utf-8")

    @property
    def stderr(self) -> str:
        return (self.folder / "told.txt").read_text("utf-8")


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory, forked_micronet) -> Quickstart:
    folder = tmp_path_factory.getbasetemp() / "quickstart"
    if "PYTEST_XDIST_WORKER" in os.environ:  # these processes share the folder above
        folder = folder.parents[1] / "quickstart"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "told.txt").exists():
            folder.mkdir()
            done = forked_micronet(folder, "run", "quickstart")
            assert done.returncode == 0, done.stderr
            (folder / "printed.txt").write_text(done.stdout, "utf-8")
            (folder / "told.txt").write_text(done.stderr, "utf-8")
    return Quickstart(folder)
