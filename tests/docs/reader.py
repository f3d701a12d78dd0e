"""A reader who does, in a folder of his own, what a page says."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import yaml
from page import Block

_WHOLE_RECIPE = {"model": "nin", "data": "digits", "steps": ["evaluate"]}
_WORD = re.compile(r"[A-Za-z_][\w']{2,}")
_KERNEL = re.compile(r"(jit|brgconv)_")
"""How the names of an engine's kernels begin, which are those of the processor."""

_SMALLER = (
    "--set=model={name: nin, cfg: [16, 16, 16, 16, 16, 16, 16, 16]}",
    "--set=steps.0.train.epochs=1",
    "--set=steps.2.train.epochs=1",
    "--set=steps.6.deploy.min_parity=0.9",
)
"""What makes a quickstart short that is not the first one."""

_COMPILED = ("sh", "./serve")
"""Commands that need a compiler."""

NOT_FOLLOWED = {
    r"python3 -m venv .*": "installs from an index; continuous integration runs such a line",
    r"\. \.venv/bin/activate|source .*": "belongs to the line before",
    r"(\.venv-tox/bin/)?pip install (?!-e).*": "installs from an index",
    r"pytest .*|.*\btox\b.*|\.venv-tox/bin/pre-commit .*": "runs what runs this test",
    r".*--gpu-id 0,1|accelerate launch --multi_gpu .*": "needs GPUs",
    r"micronet run gpu.yaml.*": "needs TensorRT and a GPU",
    r"micronet deploy theirs .*": "needs a run of somebody else's",
    r"python tests/benchmarks/.*": "a benchmark, run by hand",
    r"cd micronet/compression/.*|cd \.\./.*|cd bn_fuse": "works in a clone",
    r"python (main|normal_regular_prune|bn_fuse|bn_fused_model_test)\.py.*": (
        "tests/classic runs it on the digits"
    ),
}
"""Lines that are not run, and why."""


@attrs.define
class Reader:
    """Follows blocks one by one.

    Attributes:
        folder: Where he works.
        micronet: `micronet` in a folder, in a process of its own.
        known: What a command has printed that need not run again, on stdout and stderr.
    """

    folder: Path
    micronet: Callable[..., subprocess.CompletedProcess[str]]
    known: dict[str, str] = attrs.field(factory=dict)
    _names: dict[str, Any] = attrs.field(factory=lambda: {"__name__": "__page__"})
    _seen: str = ""

    def keep(self, block: Block) -> None:
        """Writes the file that a block is."""
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def follow(self, block: Block) -> None:
        if block.file and block.language != "text":
            self.keep(block)
        elif block.language in ("console", "sh"):
            self._commands(block)
        elif block.language == "python":
            self._python(block)
        elif block.language == "yaml":
            self._recipe(block)
        elif block.language == "text":
            self._compare(block.text, block)
        else:
            assert block.language in ("", "toml"), f"{block}: what is {block.language!r}?"

    def _commands(self, block: Block) -> None:
        start = r"^\$ " if block.language == "console" else "^(?=.)"
        for part in re.split(start, block.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            last = command.rpartition(" && ")[2].removeprefix(".venv/bin/")
            if command.split()[0] in _COMPILED and shutil.which("g++") is None:
                continue
            if last in self.known:
                command = last
            elif any(re.fullmatch(pattern, command) for pattern in NOT_FOLLOWED):
                continue
            expected = 2 if output.startswith("micronet: ") else 0
            status, printed = self._run(command)
            assert status == expected, f"{block}: {command}\n{printed}"
            self._seen += printed
            self._compare(output, block)

    def _run(self, command: str) -> tuple[int, str]:
        if command in self.known:
            return 0, self.known[command]
        words = shlex.split(command, comments=True)
        environment = {}
        while "=" in words[0]:
            name, _, environment[name] = words.pop(0).partition("=")
        if words[:3] == ["micronet", "run", "quickstart"]:
            words += _SMALLER
        if words[0] in _COMPILED:
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            done = subprocess.run(
                words,
                cwd=self.folder,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
        elif words[0] == "micronet":
            done = self.micronet(self.folder, *words[1:], **environment)
        else:
            if words[:3] == ["pip", "install", "-e"]:
                # Into the folder, where commands look first, and not into this environment.
                offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
                words = ["-m", "pip", "install", *offline, "--target", ".", *words[3:]]
            elif words[0] == "torchrun":
                words = ["-m", "torch.distributed.run", *words[1:]]
            else:
                raise AssertionError(f"nobody says how to follow {command!r}")
            done = self._subprocess(words, environment)
        return done.returncode, done.stdout + done.stderr

    def _python(self, block: Block) -> None:
        if re.search(r"^def test_", block.text, flags=re.MULTILINE):
            (self.folder / "test_page.py").write_text(block.text, "utf-8")
            done = self._subprocess(["-m", "pytest", "-q", "test_page.py"], {})
            assert done.returncode == 0, f"{block}:\n{done.stdout}"
            return
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, str(block), "exec"), self._names)
        self._seen += printed.getvalue()

    def _recipe(self, block: Block) -> None:
        """A part of a recipe: everything else in it is ordinary."""
        part = yaml.safe_load(block.text)
        recipe = {**_WHOLE_RECIPE, **(part if isinstance(part, dict) else {"steps": part})}
        (self.folder / "part.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
        done = self.micronet(self.folder, "validate", "part.yaml")
        assert done.returncode == 0, f"{block}:\n{done.stderr}"

    def _compare(self, shown: str, block: Block) -> None:
        """What a page shows has been printed, but for numbers and the order of words."""
        printed = set(_WORD.findall(self._seen))
        for line in shown.splitlines():
            words = [word for word in _WORD.findall(line) if not _KERNEL.match(word)]
            missing = [word for word in words if word not in printed]
            assert not missing or "…" in line, f"{block}: {missing} of {line!r} in\n{self._seen}"

    def _subprocess(self, words: list[str], environment: dict[str, str]):
        path = os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
