"""The classic commands run in this process, each in a folder of its own."""

import contextlib
import importlib
import io
import os
from pathlib import Path

import attrs
import pytest
import torch

from micronet.compression.checkpoint import Checkpoint, build
from micronet.compression.quantization.lenet import LeNet

TINY = {"nin": (8,) * 8, "nin_gc": (16, 16, 16, 32, 32, 32, 32, 32)}
"""Channels that train in a second."""


@attrs.frozen
class Done:
    """What a command left: exit code and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


@attrs.frozen
class Folder:
    """A folder with classic commands in it."""

    path: Path

    def run(self, command, *flags):
        """Runs `micronet.compression.COMMAND` here."""
        module = importlib.import_module(f"micronet.compression.{command}")
        out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
        self.path.mkdir(parents=True, exist_ok=True)
        os.chdir(self.path)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = module.main([str(flag) for flag in flags])
        except SystemExit as end:
            code = end.code
        finally:
            os.chdir(before)
        return Done(code, out.getvalue(), err.getvalue())

    def trains(self, command, *flags, epochs=1):
        """Runs a command that trains on the digits; it must succeed."""
        quickly = ("--dataset", "digits", "--cpu", "--num_workers", 0, "--batch_size", 128)
        done = self.run(command, *quickly, "--epochs", epochs, *flags)
        assert done.code == 0, done.err
        return done

    def measures(self, command, *flags):
        """Runs a command that only evaluates on the digits; it must succeed."""
        done = self.run(command, "--dataset", "digits", "--cpu", *flags)
        assert done.code == 0, done.err
        return done

    def saved(self, name):
        """A model file of this folder."""
        return Checkpoint.load(self.path / "models_save" / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes a folder by its name, the same one each time."""
    root = tmp_path_factory.mktemp("classic")
    return lambda name: Folder(root / name)


@pytest.fixture(scope="module")
def floats(folder):
    """Tiny float networks, trained a little: the folder of the pruning commands."""
    here = folder("pruning")
    for name, cfg in TINY.items():
        torch.manual_seed(0)
        path = here.path / "models_save" / f"{name}.pth"
        Checkpoint(path, build(name, cfg).state_dict(), name, cfg).save()
    here.trains("pruning.main", "--refine", "models_save/nin.pth", "--lr", 0.05, epochs=2)
    return here


@pytest.fixture
def lenet():
    torch.manual_seed(0)
    return LeNet()


@pytest.fixture
def grey():
    """float32 [4, 1, 28, 28]."""
    return torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
