"""What all tests share: small real models, real images, and commands."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import operator_table
import pytest
import torch
from torch import Tensor, nn

operator_table.share()

CliResult = subprocess.CompletedProcess[str]
QUIET_THREADS = {"OMP_WAIT_POLICY": "passive"}
"""Idle threads of torch sleep; spinning, they starve each other where cores are shared."""


class SmallNet(nn.Module):
    """Convolutions with batch norm, a residual addition, pooling, dropout and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stem_bn = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.body_bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem_bn(self.stem(x)))
        x = nn.functional.max_pool2d(x, 2)
        x = self.relu(x + self.body_bn(self.body(x)))
        x = nn.functional.dropout(self.pool(x).flatten(1), 0.2, training=self.training)
        return self.head(x)


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where micronet keeps the key of the user who runs the tests."""
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state))
        yield state


@pytest.fixture
def small_net() -> SmallNet:
    """A SmallNet whose batch norms have statistics and gammas of both signs."""
    torch.manual_seed(0)
    net = SmallNet()
    for bn in (net.stem_bn, net.body_bn):
        nn.init.uniform_(bn.weight, -1.5, 1.5)
        nn.init.uniform_(bn.bias, -0.5, 0.5)
        nn.init.uniform_(bn.running_mean, -0.5, 0.5)
        nn.init.uniform_(bn.running_var, 0.5, 2.0)
    return net


@pytest.fixture
def images() -> Tensor:
    """float32 [8, 3, 16, 16]."""
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def micronet_cli(tmp_path: Path) -> Callable[..., CliResult]:
    """Runs the `micronet` command in a process of its own, in `tmp_path`."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> CliResult:
        return subprocess.run(
            [sys.executable, "-m", "micronet", *arguments],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def forked_micronet() -> Iterator[Callable[..., CliResult]]:
    """Runs `micronet` in a folder, in a process of its own that need not import torch again."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
        env={**os.environ, **QUIET_THREADS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def run(folder: Path, *arguments: str, **environment: str) -> CliResult:
            stdout, stderr = folder / "stdout.txt", folder / "stderr.txt"
            command = {
                "folder": str(folder),
                "arguments": arguments,
                "environment": {**os.environ, **QUIET_THREADS, **environment},
                "stdout": str(stdout),
                "stderr": str(stderr),
            }
            print(json.dumps(command), file=server.stdin, flush=True)
            status = int(server.stdout.readline())
            printed, told = stdout.read_text("utf-8"), stderr.read_text("utf-8")
            return CliResult(arguments, status, printed, told)

        yield run
        server.stdin.close()
