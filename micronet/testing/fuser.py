"""What users rely on in a fuser."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from micronet import registry
from micronet.techniques import Fuser
from micronet.testing.contract import Case, Contracts, shared_contracts
from micronet.testing.networks import (
    difference,
    far_apart,
    images,
    network,
    outputs_of,
    state_of,
)

_ROUNDED = 1e-3


@attrs.define
class FuserCase(Case):
    """A fuser under examination."""

    technique: Fuser
    kind: ClassVar[str] = "fuser"

    def fused(self, model: nn.Module) -> nn.Module:
        return self.technique.fuse(model, (images(2),))

    def models(self) -> Iterator[tuple[str, nn.Module]]:
        """A float model, and models of quantizers."""
        yield "a float model", network()
        for name in ("iao", "wbwtab"):
            quantizer = registry.create("quantizer", name)
            model = quantizer.prepare(network(), (images(2),))
            if quantizer.needs_data:
                quantizer.calibrate(model, [images()])
            yield f"a model of the quantizer {name}", model.eval()


FUSER: Contracts[FuserCase] = Contracts(*shared_contracts())


def check_fuser(fuser: Fuser, *, expected_failures: Mapping[str, str] | None = None) -> None:
    """Verifies every contract of fusers, on float and quantized networks and on ONNX Runtime.

    Args:
        fuser: An instance, with the options to examine.
        expected_failures: Names of contracts that it is known to break, and why.

    Raises:
        ContractError: What is broken, what was seen and what to do, for all contracts at once.
    """
    FUSER.check(FuserCase(fuser), expected_failures or {})


@FUSER.contract("Fuse a deep copy.")
def leaves_the_given_model_as_it_was(case: FuserCase) -> str | None:
    """`fuse` changes nothing in the model that it is given."""
    model = network()
    case.fused(model)
    changed = difference(state_of(network()), state_of(model))
    return f"afterwards, in the given model, {changed}." if changed else None


@FUSER.contract("Fold exactly: w gamma / sqrt(variance + eps), and the bias with it.")
def keeps_outputs(case: FuserCase) -> str | None:
    """In eval mode the fused model computes what the model computed, quantized or not."""
    for words, model in case.models():
        apart = far_apart(
            outputs_of(case.fused(model), images()), outputs_of(model, images()), _ROUNDED
        )
        if apart:
            return f"with {words} {apart}"
    return None


@FUSER.contract("Decide by the graph and the layers' types; never look at a weight's value.")
def follows_structure_alone(case: FuserCase) -> str | None:
    """Models of one structure fuse to one structure, and the state of one loads into the other."""
    other = network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-0.5).add_(0.01)
    fused, again = case.fused(network()), case.fused(other)
    again.load_state_dict(state_of(fused))
    apart = far_apart(outputs_of(again, images()), outputs_of(fused, images()), 1e-6)
    return f"after loading {apart}" if apart else None


@FUSER.contract("Leave layers that torch exports.")
def runs_on_an_engine(case: FuserCase) -> str | None:
    """ONNX Runtime gives the outputs of a fused float model."""
    fused = case.fused(network()).eval()
    backend = registry.create("deploy_backend", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        artifact = backend.export(fused, (images(2),), Path(folder))
        found: Tensor = torch.from_numpy(backend.load(artifact)(images().numpy()))
    return far_apart(found, outputs_of(fused, images()), 1e-4)
