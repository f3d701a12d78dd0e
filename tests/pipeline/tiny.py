"""What a user of micronet brings, a model and data; and mishaps, when the environment asks for one.

MISHAP says what: a key of `_MISHAPS`. MISHAP_AT says when: `image 400` is when
the 400th training image is read; `within F 1`, `before F 1` and `after F 1` are when the file (or
folder) F is written for the first time: half written, written under its temporary name, renamed.
KILLED_AFTER says after how many seconds the process is killed, wherever it then is.
"""

import contextlib
import os
import resource
import signal
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

_LITTLE = 2000
"""Bytes that a file may have once the disk is full: more than this process prints."""
_seen: Counter[str] = Counter()


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, 4),
    )


def data(*, broken: bool = False) -> tuple[Dataset, Dataset]:
    """256 training and 128 test images; `broken` ones are not numbers."""
    if "WAIT_FOR" in os.environ:
        Path(os.environ["WAIT_FOR"]).read_text("utf-8")
    return Quarters(256, seed=0, training=True, broken=broken), Quarters(128, seed=1)


class Quarters(Dataset):
    """Noise in which one quarter is brighter, the class: 3x16x16, 4 classes."""

    def __init__(
        self, length: int, *, seed: int, training: bool = False, broken: bool = False
    ) -> None:
        self.training = training
        self.labels = torch.arange(length) % 4
        self.images = torch.randn(length, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            row, column = 8 * (label // 2), 8 * (label % 2)
            image[:, row : row + 8, column : column + 8] += 0.35
        if broken:
            self.images.fill_(torch.nan)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.training:
            if "COUNT_IN" in os.environ:
                with Path(os.environ["COUNT_IN"]).open("ab") as file:
                    file.write(b".")
            _pass("image")
        return self.images[index], int(self.labels[index])


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _fill_the_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LITTLE, _LITTLE))


def _open_no_more_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


_MISHAPS = {
    "killed": _kill,
    "interrupted": _interrupt,
    "disk full": _fill_the_disk,
    "too many files": _open_no_more_files,
}


def _pass(moment: str) -> None:
    _seen[moment] += 1
    if os.environ.get("MISHAP_AT") == f"{moment} {_seen[moment]}":
        _MISHAPS[os.environ["MISHAP"]]()


def _watch_files() -> None:
    replace, write_bytes = Path.replace, Path.write_bytes

    def watched_replace(path: Path, target: Path) -> Path:
        _pass(f"before {target.name}")
        new = replace(path, target)
        _pass(f"after {target.name}")
        return new

    def watched_write_bytes(path: Path, content: bytes) -> int:
        write_bytes(path, content[: len(content) // 2])
        _pass(f"within {path.name[1:].rsplit('.', 2)[0]}")
        return write_bytes(path, content)

    Path.replace, Path.write_bytes = watched_replace, watched_write_bytes


def _kill_after(seconds: float) -> None:
    this = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            signal.pidfd_send_signal(this, signal.SIGKILL)
        os._exit(0)
    os.close(this)


if "KILLED_AFTER" in os.environ:
    _kill_after(float(os.environ["KILLED_AFTER"]))
if "MISHAP" in os.environ:
    _watch_files()
