"""What users rely on in a deploy backend."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from torch import nn

from micronet import registry
from micronet.errors import DeployError
from micronet.structure import described, leaves, names, nest
from micronet.techniques import Artifact, DeployBackend, Scheme
from micronet.testing.contract import (
    Case,
    Contracts,
    environment,
    is_importable,
    shared_contracts,
)
from micronet.testing.networks import (
    SeveralOfBoth,
    difference,
    far_apart,
    images,
    network,
    outputs_of,
    several_inputs,
    state_of,
)

_EXACT = 1e-3


@attrs.define(slots=False)
class DeployBackendCase(Case):
    """A deploy backend under examination."""

    technique: DeployBackend
    kind: ClassVar[str] = "deploy backend"

    @property
    def usable(self) -> bool:
        return self.technique.available() is None

    @cached_property
    def folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory()

    @cached_property
    def exported(self) -> Artifact:
        """The float network, in a folder of this case."""
        directory = Path(self.folder.name) / "float"
        return self.technique.export(network(), (images(2),), directory)

    @cached_property
    def quantized(self) -> nn.Module:
        scheme = self.technique.fast or Scheme()
        quantizer = registry.create(
            "quantizer",
            "iao",
            w_bits=int(scheme.w_bits),
            a_bits=int(scheme.a_bits),
            w_symmetric=scheme.w_symmetric,
            a_symmetric=scheme.a_symmetric,
            per_channel=scheme.per_channel,
        )
        model = quantizer.prepare(network(), (images(2),))
        quantizer.calibrate(model, [images(64)])
        fused = registry.create("fuser", "bn").fuse(model, (images(2),))
        converted: nn.Module = quantizer.convert(fused)
        return converted


BACKEND: Contracts[DeployBackendCase] = Contracts(*shared_contracts())


def check_deploy_backend(
    backend: DeployBackend, *, expected_failures: Mapping[str, str] | None = None
) -> None:
    """Verifies every contract of deploy backends; where the engine can't run, those of the rest.

    Args:
        backend: An instance, with the options to examine.
        expected_failures: Names of contracts that it is known to break, and why.

    Raises:
        ContractError: What is broken, what was seen and what to do, for all contracts at once.
    """
    BACKEND.check(DeployBackendCase(backend), expected_failures or {})


@BACKEND.contract("Catch the import error, and return a sentence with the pip line.")
def says_what_is_missing(case: DeployBackendCase) -> str | None:
    """Where the engine can't be used, `available` says why and how to mend it, and never raises."""
    reason = case.technique.available()
    if reason is None or ("install" in reason and reason.strip()):
        return None
    return f"it said {reason!r}."


@BACKEND.contract("Let `unsuitable` return None for the scheme in `fast`.")
def runs_what_it_is_fast_with(case: DeployBackendCase) -> str | None:
    """The scheme that a backend calls fast is one that it runs."""
    if case.technique.fast is None:
        return None
    reason = case.technique.unsuitable(case.technique.fast)
    return None if reason is None else f"it said {reason!r}."


@BACKEND.contract(
    "Write the card with `Artifact.write_card()`, and keep every file in the directory.",
    applies=lambda case: case.usable,
)
def moves(case: DeployBackendCase) -> str | None:
    """The artifact's card reads back equal, and a copy of the folder elsewhere runs."""
    if Artifact.read(case.exported.directory) != case.exported:
        return "the card reads back as another artifact."
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder) / "copy"
        shutil.copytree(case.exported.directory, elsewhere)
        with _away(case.exported.directory):
            found = case.technique.load(Artifact.read(elsewhere))(images().numpy())
    return far_apart(torch.from_numpy(found), outputs_of(network(), images()), _EXACT)


@BACKEND.contract(
    "Give the engine a dynamic batch, or split and pad batches in the Runner.",
    applies=lambda case: case.usable,
)
def agrees_at_any_batch_size(case: DeployBackendCase) -> str | None:
    """For batches of 1, 3 and 16 images the engine gives torch's outputs, float32."""
    runner = case.technique.load(case.exported)
    for size in (1, 3, 16):
        found = runner(images(size).numpy())
        if found.dtype != np.float32:
            return f"outputs are {found.dtype}."
        if apart := far_apart(torch.from_numpy(found), outputs_of(network(), images(size)), _EXACT):
            return f"for {size} images {apart}"
    return None


@BACKEND.contract(
    "Take inputs by the signature's names, and give all outputs in its order.",
    applies=lambda case: case.usable,
)
def takes_several_inputs_and_gives_all_outputs(case: DeployBackendCase) -> str | None:
    """A model of several inputs, a dict among them, gives a dict with all of its outputs."""
    model, example = SeveralOfBoth().eval(), several_inputs(2)
    with tempfile.TemporaryDirectory() as folder:
        artifact = case.technique.export(model, example, Path(folder) / "several")
        runner = case.technique.load(artifact)
        for count in (1, 3):
            inputs = several_inputs(count)
            image, more, places = inputs
            found = runner(
                image.numpy(), {key: each.numpy() for key, each in more.items()}, places.numpy()
            )
            with torch.no_grad():
                expected = model(*inputs)
            if not isinstance(found, dict) or list(found) != list(expected):
                return f"it gave {described(found)}, the model {described(expected)}."
            pairs = zip(leaves(nest(found)), leaves(nest(expected)), strict=True)
            for name, pair in zip(names(nest(expected), "output"), pairs, strict=True):
                given, wanted = torch.from_numpy(pair[0]), pair[1]
                if given.dtype != wanted.dtype:
                    return f"{name} is {given.dtype}, the model gives {wanted.dtype}."
                if apart := far_apart(given.double(), wanted.double(), _EXACT):
                    return f"in {name} {apart}"
    return None


@BACKEND.contract(
    "Derive the runner from `Runner` and implement `run`; `Runner.__call__` checks.",
    applies=lambda case: case.usable,
)
def refuses_what_does_not_fit(case: DeployBackendCase) -> str | None:
    """Inputs of another type, another number of channels or too many are refused in words."""
    runner = case.technique.load(case.exported)
    batch = images(2).numpy()
    for inputs in ((batch.astype(np.float64),), (batch[:, :2],), (batch, batch)):
        try:
            runner(*inputs)
        except DeployError:
            continue
        except Exception as error:
            return f"it raised {type(error).__name__}, not DeployError."
        return f"it took {', '.join(f'{each.dtype} {list(each.shape)}' for each in inputs)}."
    return None


@BACKEND.contract(
    "Leave `export` and `load` as the base has them; implement `write` and `start`.",
    applies=lambda case: case.usable,
)
def takes_paths_in_text(case: DeployBackendCase) -> str | None:
    """`export` and `load` take a folder as text."""
    with tempfile.TemporaryDirectory() as folder:
        text = str(Path(folder) / "float")
        case.technique.export(network(), (images(2),), text)
        found = case.technique.load(text)(images().numpy())
    return far_apart(torch.from_numpy(found), outputs_of(network(), images()), _EXACT)


@BACKEND.contract(
    "Run Q/DQ as written: rounding half to even, no scale of the engine's own.",
    applies=lambda case: case.usable,
)
def agrees_on_integers(case: DeployBackendCase) -> str | None:
    """Quantized to its fast scheme, 63 of 64 images get the simulation's class."""
    batch = images(64)
    with tempfile.TemporaryDirectory() as folder:
        artifact = case.technique.export(case.quantized, (images(2),), Path(folder) / "int8")
        found = case.technique.load(artifact)(batch.numpy())
    agreeing = int((found.argmax(1) == outputs_of(case.quantized, batch).argmax(1).numpy()).sum())
    return None if agreeing >= len(batch) - 1 else f"{agreeing} do."


@BACKEND.contract(
    "Export a copy, or put everything back.",
    applies=lambda case: case.usable,
)
def leaves_the_given_model_as_it_was(case: DeployBackendCase) -> str | None:
    """`export` changes nothing in the model that it is given."""
    model = network()
    with tempfile.TemporaryDirectory() as folder:
        case.technique.export(model, (images(2),), Path(folder) / "float")
    changed = difference(state_of(network()), state_of(model))
    return f"afterwards, in the given model, {changed}." if changed else None


@BACKEND.contract(
    "Hold buffers in the Runner, and return arrays that the next call does not write to.",
    applies=lambda case: case.usable,
)
def keeps_calls_apart(case: DeployBackendCase) -> str | None:
    """Runners that take turns disturb neither each other's outputs nor those given before."""
    first, second = (case.technique.load(case.exported, threads=1) for _ in range(2))
    given = first(images().numpy())
    kept = given.copy()
    second(images(seed=1).numpy())
    first(images(3, seed=2).numpy())
    if not np.array_equal(given, kept):
        return "outputs given before have changed."
    return None if np.array_equal(first(images().numpy()), kept) else "the same images give others."


@BACKEND.contract(
    "Import torch in `export` alone; `load` and the Runner need numpy and the engine.",
    applies=lambda case: case.usable and is_importable(case),
)
def runs_without_torch(case: DeployBackendCase) -> str | None:
    """Where torch can't be imported, the engine loads and runs."""
    cls = type(case.technique)
    code = _WITHOUT_TORCH.format(module=cls.__module__, name=cls.__qualname__)
    technique: Any = case.technique
    arguments = [str(case.exported.directory), json.dumps(attrs.asdict(technique))]
    done = subprocess.run(  # noqa: S603 (our own interpreter)
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if done.returncode == 0:
        return None
    return f"{(done.stderr.strip().splitlines() or ['it ended'])[-1]}."


_WITHOUT_TORCH = """
import json, sys
from pathlib import Path
sys.modules["torch"] = None
import numpy
from micronet.techniques import Artifact
from {module} import {name}
artifact = Artifact.read(Path(sys.argv[1]))
runner = {name}(**json.loads(sys.argv[2])).load(artifact)
outputs = runner(numpy.zeros((3, *artifact.input_shape[1:]), numpy.float32))
assert outputs.shape == (3, 10), outputs.shape
"""


@contextmanager
def _away(directory: Path) -> Iterator[None]:
    """A folder under another name for a while, so that nothing can read from it."""
    hidden = directory.rename(directory.with_name(f"{directory.name}-away"))
    try:
        yield
    finally:
        hidden.rename(directory)
