"""The deploy backend kind: turns a model into an engine's file and runs that file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from micronet.errors import DataError, DeployError, MicronetError
from micronet.plain import structured
from micronet.storage.files import check_sums, read_json, sha256, write_json, writing
from micronet.techniques.engine_input import EngineInput
from micronet.techniques.images import ImageFacts
from micronet.techniques.scheme import Scheme
from micronet.techniques.signature import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

CARD = "artifact.json"
"""The file in an artifact's folder that says what the others are."""
FLOAT = "float"
"""Folder of the float model's artifact, in the folder of the deployed model."""


@attrs.frozen
class Artifact:
    """A deployed model: a folder with the engine's files and a card that says what is in it.

    Args:
        directory: The folder.
        backend: Registered name of the backend that wrote it and can load it.
        file: The engine's file, relative to `directory`.
        signature: What the model takes and gives.
        engine: Name and version of the engine that wrote it.
        settings: What the backend wants to know when it loads the file.
        source: The checkpoint or packed file whose model it is, relative to `directory` or
            absolute; `None` if nobody said.
        more_files: Further files that the engine reads, relative to `directory`.
        remarks: What a user should hear about the export, such as layers left in float and why; a
            sentence each.
        task: What its outputs mean: a task's name and options; `None` if nobody said.
        images: What images it was measured on; `None` if nobody said.
        input: What its engine takes in the place of prepared images; `None` if it takes those.
        sums: SHA-256 of each file that the engine reads, by its name; `write_card` takes them.
    """

    directory: Path = attrs.field(converter=Path)
    backend: str
    file: str
    signature: Signature
    engine: str
    settings: Mapping[str, str] = attrs.field(factory=dict)
    source: str | None = None
    more_files: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    sums: Mapping[str, str] = attrs.field(factory=dict, eq=False)
    task: Mapping[str, Any] | None = None
    images: ImageFacts | None = None
    input: EngineInput | None = None

    @property
    def path(self) -> Path:
        return self.directory / self.file

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input, with the sizes of the example."""
        return self.signature.input_specs[0].example

    @property
    def size_bytes(self) -> int:
        """Of all files that the engine reads."""
        files = (self.file, *self.more_files)
        return sum((self.directory / name).stat().st_size for name in files)

    def write_card(self) -> None:
        files = (self.file, *self.more_files)
        written = attrs.evolve(self, sums={name: sha256(self.directory / name) for name in files})
        card = attrs.asdict(written, filter=attrs.filters.exclude("directory"))
        write_json(self.directory / CARD, card)

    @classmethod
    def read(cls, directory: Path | str) -> Artifact:
        """The artifact in a folder.

        Raises:
            DeployError: There is none, or its card can't be read, was changed, or is an older
                micronet's.
        """
        directory = Path(directory)
        try:
            card = read_json(directory / CARD, dict[str, Any], "card")
            return structured({**card, "directory": str(directory)}, cls)
        except FileNotFoundError as error:
            raise DeployError(
                f"{directory} holds no readable artifact: there is no {CARD}."
            ) from error
        except DataError as error:
            raise DeployError(
                f"{directory} holds no readable artifact: {str(error).rstrip('.')}. Deploy the "
                f"model again."
            ) from error

    def check_files(self) -> None:
        """Raises a DeployError where an engine's file is not as it was written."""
        if {self.file, *self.more_files} != self.sums.keys():
            raise DeployError(f"The card in {self.directory} does not sum up its own files.")
        try:
            check_sums(self.directory, self.sums, "Deploy the model again.")
        except DataError as error:
            raise DeployError(str(error)) from error


class Runner(ABC):
    """A loaded engine: numpy in, numpy out, and never torch.

    Args:
        signature: What its model takes and gives.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The model's outputs, in the structure that the model gives.

        Args:
            inputs: What the model's forward takes, with numpy arrays for tensors; dimensions that
                the signature calls free may have any size.
            named: The same by the names of forward's arguments.

        Raises:
            DeployError: They are not what the signature says, or the engine can't run on them.
        """
        return self.signature.structured(self.run(self.signature.arrays(inputs, named)))

    @abstractmethod
    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """All outputs, in the signature's order, for inputs that fit the signature."""


class DeployBackend(ABC):
    """Contract of a deploy backend."""

    needs: ClassVar[tuple[str, str] | None] = None
    """The engine's module, and what pip installs it by; `None` if there is nothing to install."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A backend may also override `export` and `load` whole; nothing calls their parts then."""
        super().__init_subclass__(**kwargs)
        for whole, part in (("export", "write"), ("load", "start")):
            if whole in vars(cls) and part not in vars(cls):
                setattr(cls, part, vars(cls)[whole])

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

    def available(self) -> str | None:
        """`None` if the engine can be used here, else the reason with the line that mends it.

        By default the engine can be used if the module that `needs` names is installed.
        """
        if self.needs is None:
            return None
        module, requirement = self.needs
        if find_spec(module) is not None:
            return None
        return f"{module} is not installed; pip install {requirement}"

    def refuse_elsewhere(self) -> None:
        """Raises a DeployError where the engine can't be used."""
        reason = self.available()
        if reason is not None:
            raise DeployError(f"{type(self).__name__} can't run here: {reason}.")

    def export(
        self,
        model: nn.Module,
        example_inputs: tuple[Any, ...],
        directory: Path | str,
        *,
        dynamic: Sequence[str] = ("batch",),
    ) -> Artifact:
        """Writes the engine's files and the card for a float or a converted model.

        Args:
            model: In eval mode, on the CPU.
            example_inputs: What its forward takes: a tensor, or a dict, list or tuple of tensors,
                for each argument; those with defaults may be left out.
            directory: The artifact's folder; made if it is not there.
            dynamic: Dimensions that may differ at run time: "batch", "height", "width"; see
                `micronet.deployment.flat_model`.

        Raises:
            DeployError: The engine can't be used here, or the model can't be exported.
            WriteError: The system refuses the files.
        """
        from micronet.graph.example_inputs import check_example_inputs

        check_example_inputs(example_inputs, required=True)
        self.refuse_elsewhere()
        with writing(directory):
            artifact = self.write(model, example_inputs, Path(directory), dynamic=tuple(dynamic))
            artifact.write_card()
        return artifact

    def load(self, artifact: Artifact | Path | str, *, threads: int | None = None) -> Runner:
        """The engine, ready to run.

        Args:
            artifact: Written by `export` of the same backend, or its folder.
            threads: Threads it may use; `None` lets the engine choose.

        Raises:
            DeployError: The engine can't load the file, or it was changed since it was written.
        """
        if not isinstance(artifact, Artifact):
            artifact = Artifact.read(artifact)
            artifact.check_files()
        try:
            return self.start(artifact, threads=threads)
        except MicronetError:
            raise
        except Exception as error:  # each engine has exceptions of its own
            raise DeployError(f"{artifact.backend} can't load {artifact.path}: {error}") from error

    @abstractmethod
    def write(
        self,
        model: nn.Module,
        example_inputs: tuple[Any, ...],
        directory: Path,
        *,
        dynamic: tuple[str, ...],
    ) -> Artifact:
        """Does what `export` promises, but for the card; makes the folder if it is not there."""

    @abstractmethod
    def start(self, artifact: Artifact, *, threads: int | None) -> Runner:
        """Does what `load` promises; any exception becomes a DeployError that names the file."""
