"""The deploy backend kind: turns a model into an engine's file and runs that file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from micronet.errors import DeployError
from micronet.storage.files import write_text
from micronet.techniques.scheme import Scheme

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

CARD = "artifact.json"
"""The file in an artifact's folder that says what the others are."""


@attrs.frozen
class Artifact:
    """A deployed model: a folder with the engine's files and a card that says what is in it.

    Args:
        directory: The folder.
        backend: Registered name of the backend that wrote it and can load it.
        file: The engine's file, relative to `directory`.
        input_shape: Shape of one input, batch first, with the batch size of the example.
        engine: Name and version of the engine that wrote it.
        settings: What the backend wants to know when it loads the file.
        source: The checkpoint or packed file whose model it is, relative to `directory` or
            absolute; `None` if nobody said.
        more_files: Further files that the engine reads, relative to `directory`.
        remarks: What a user should hear about the export, such as layers left in float and why; a
            sentence each.
    """

    directory: Path
    backend: str
    file: str
    input_shape: tuple[int, ...]
    engine: str
    settings: Mapping[str, str] = attrs.field(factory=dict)
    source: str | None = None
    more_files: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.directory / self.file

    @property
    def size_bytes(self) -> int:
        """Of all files that the engine reads."""
        files = (self.file, *self.more_files)
        return sum((self.directory / name).stat().st_size for name in files)

    def write_card(self) -> None:
        card = attrs.asdict(self, filter=attrs.filters.exclude("directory"))
        write_text(self.directory / CARD, json.dumps(card, indent=2) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Artifact:
        """The artifact in a folder.

        Raises:
            DeployError: There is none, or its card can't be read.
        """
        try:
            card: dict[str, Any] = json.loads((directory / CARD).read_text("utf-8"))
            card["input_shape"] = tuple(card["input_shape"])
            for name in ("more_files", "remarks"):
                card[name] = tuple(card.get(name, ()))
            return cls(directory=directory, **card)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DeployError(f"{directory} holds no readable artifact: {error}") from error


class Runner(ABC):
    """A loaded engine. Needs numpy, never torch."""

    @abstractmethod
    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [batch, classes] for images [batch, channels, height, width], any batch size."""


class DeployBackend(ABC):
    """Contract of a deploy backend."""

    fast: ClassVar[Scheme | None] = None
    """The scheme that its engine is fast with; `target` of a quantizer takes it over."""

    def is_fast(self, scheme: Scheme) -> bool:
        """Whether the engine computes a scheme as fast as `fast`; so it does with fewer bits."""
        return self.fast is None or self.fast == attrs.evolve(
            scheme,
            w_bits=max(scheme.w_bits, self.fast.w_bits),
            a_bits=max(scheme.a_bits, self.fast.a_bits),
        )

    def unsuitable(self, scheme: Scheme) -> str | None:  # noqa: ARG002 (for those who refuse some)
        """Why the engine can't run a scheme, as a sentence; `None` if it can."""
        return None

    def for_float(self) -> DeployBackend:
        """The backend for the float model that a deployed one is compared with.

        By default it is this one; an option `precision` becomes "model", as an integer engine of a
        float model can't be, and a float16 one would be no measure.
        """
        technique: Any = self  # each is an attrs class, the contract is none
        if "precision" not in attrs.fields_dict(type(technique)):
            return self
        backend: DeployBackend = attrs.evolve(technique, precision="model")
        return backend

    @abstractmethod
    def available(self) -> str | None:
        """`None` if the engine can be used here, else the reason with the line that mends it."""

    @abstractmethod
    def export(
        self,
        model: nn.Module,
        example_inputs: tuple[Tensor, ...],
        directory: Path,
        *,
        dynamic: tuple[str, ...] = ("batch",),
    ) -> Artifact:
        """Writes the engine's file for a float or a converted model into `directory`.

        Args:
            model: In eval mode, on the CPU.
            example_inputs: One batch.
            directory: The artifact's folder; made if it is not there.
            dynamic: Dimensions that may differ at run time: "batch", "height", "width".

        Raises:
            DeployError: The model can't be exported.
        """

    @abstractmethod
    def load(self, artifact: Artifact, *, threads: int | None = None) -> Runner:
        """The engine, ready to run.

        Args:
            artifact: Written by `export` of the same backend.
            threads: Threads it may use; `None` lets the engine choose.
        """
