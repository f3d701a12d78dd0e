"""What users rely on in a pruner."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from micronet import registry
from micronet.errors import PruningError, describe_error
from micronet.pruning import PruningPlan, apply_plan
from micronet.pruning.exactness import silenced
from micronet.storage.pruned import load_pruned, save_pruned
from micronet.techniques import Pruner, PruningResult
from micronet.testing.contract import Case, Contracts, shared_contracts
from micronet.testing.networks import (
    CLASSES,
    TwoWays,
    difference,
    far_apart,
    images,
    labels,
    network,
    outputs_of,
    state_of,
)

_EXACT = 1e-4


@attrs.define(slots=False)
class PrunerCase(Case):
    """A pruner under examination."""

    technique: Pruner
    kind: ClassVar[str] = "pruner"

    def pruned(self) -> PruningResult:
        return self.technique.prune(network(), (images(2),))

    @cached_property
    def result(self) -> PruningResult:
        return self.pruned()

    @cached_property
    def outputs(self) -> Tensor:
        return outputs_of(self.result.model, images())


PRUNER: Contracts[PrunerCase] = Contracts(*shared_contracts())


def check_pruner(pruner: Pruner, *, expected_failures: Mapping[str, str] | None = None) -> None:
    """Verifies every contract of pruners, on a small network and on ONNX Runtime.

    Args:
        pruner: An instance, with the options to examine; it must remove something.
        expected_failures: Names of contracts that it is known to break, and why.

    Raises:
        ContractError: What is broken, what was seen and what to do, for all contracts at once.
    """
    PRUNER.check(PrunerCase(pruner), expected_failures or {})


@PRUNER.contract("Prune a deep copy; `micronet.pruning.apply_plan` makes one.")
def leaves_the_given_model_as_it_was(case: PrunerCase) -> str | None:
    """`prune` changes nothing in the model that it is given, its mode included."""
    model = network().train()
    case.technique.prune(model, (images(2),))
    if changed := difference(state_of(network()), state_of(model)):
        return f"afterwards, in the given model, {changed}."
    return None if model.training else "the given model is in eval mode afterwards."


@PRUNER.contract("Remove channels physically, and shrink the layers that read them alike.")
def makes_it_smaller(case: PrunerCase) -> str | None:
    """The result has fewer parameters, the same inputs and outputs, and takes any batch size."""
    before, after = (sum(p.numel() for p in m.parameters()) for m in (network(), case.result.model))
    if after >= before:
        return f"it has {after} parameters, before it had {before}."
    for batch in (images(1), images(5, size=20)):
        outputs = outputs_of(case.result.model, batch)
        if outputs.shape != (len(batch), 10) or not outputs.isfinite().all():
            return f"{len(batch)} images give outputs of the shape {tuple(outputs.shape)}."
    return None


@PRUNER.contract("Make new leaf parameters of the kept channels, with requires_grad as before.")
def trains(case: PrunerCase) -> str | None:
    """Every parameter of the result gets a finite gradient and learns."""
    model = case.pruned().model.train()
    before = state_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    functional.cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not parameter.grad.isfinite().all():
            return f"{name!r} got no finite gradient."
    optimizer.step()
    still = [name for name, p in model.named_parameters() if torch.equal(before[name], p)]
    return f"{still[0]!r} did not move." if len(still) > len(before) / 2 else None


@PRUNER.contract("Tell in the plan every layer that changed: outputs, inputs and groups.")
def repeats_by_its_plan(case: PrunerCase) -> str | None:
    """The plan, written as JSON and read back, makes the same smaller model of the whole one."""
    plan = PruningPlan.from_json(case.result.plan.to_json())
    if plan != case.result.plan:
        return "the plan read back is another."
    repeated = apply_plan(network(), plan)
    return far_apart(outputs_of(repeated, images()), case.outputs, _EXACT)


@PRUNER.contract("Keep in a layer's inputs those channels that the layers before it keep.")
def computes_what_is_left(case: PrunerCase) -> str | None:
    """The result gives what the whole model does with zeros for the channels that went."""
    silent = silenced(network(), case.result.plan)
    return far_apart(outputs_of(silent, images()), case.outputs, _EXACT)


@PRUNER.contract("See repeats_by_its_plan; the file holds plan and weights.")
def reloads(case: PrunerCase) -> str | None:
    """A file of `save_pruned` gives the smaller model back with identical outputs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pruned.safetensors"
        save_pruned(case.result.model, case.result.plan, file)
        again = load_pruned(network, file)
    same = torch.equal(outputs_of(again, images()), case.outputs)
    return None if same else "outputs differ."


@PRUNER.contract("Break ties by the channels' order, and use no randomness without a seed option.")
def repeats(case: PrunerCase) -> str | None:
    """The same model is pruned to the same plan."""
    return None if case.pruned().plan == case.result.plan else "the second plan is another."


@PRUNER.contract("Give reasons under the names of the model's own layers.")
def names_layers(case: PrunerCase) -> str | None:
    """Layers left alone are told by their names, with a reason."""
    names = {name for name, _ in network().named_modules()}
    names |= {name for name, _ in network().named_parameters()}
    for name, reason in case.result.reasons.items():
        if name not in names or not reason.strip():
            return f"{name!r}: {reason!r}."
    return None


@PRUNER.contract("Leave whole, with a reason, what may feed a layer that the inputs don't reach.")
def spares_what_it_cannot_see(case: PrunerCase) -> str | None:
    """A layer that the example inputs don't reach works afterwards, and the reasons name it."""
    result = case.technique.prune(TwoWays().eval(), (images(TwoWays.FEW),))
    try:
        outputs = outputs_of(result.model, images(TwoWays.FEW + 1))
    except RuntimeError as error:
        return f"inputs that reach another layer fail: {describe_error(error)}."
    if outputs.shape != (TwoWays.FEW + 1, CLASSES):
        return f"inputs that reach another layer give the shape {tuple(outputs.shape)}."
    return None if "many" in result.reasons else "the reasons don't name that layer, 'many'."


@PRUNER.contract("Raise PruningError, with the reasons, where no channel can go.")
def says_when_nothing_goes(case: PrunerCase) -> str | None:
    """A model that can lose nothing is refused in a sentence."""
    try:
        case.technique.prune(nn.Conv2d(3, CLASSES, 3), (images(2),))
    except PruningError:
        return None
    return "a single convolution, which gives the outputs, came back without a word."


@PRUNER.contract("In `regularize` add to gradients that are there, and touch no weight.")
def regularizes_gradients_alone(case: PrunerCase) -> str | None:
    """The sparsity term moves gradients, keeps them finite, and leaves weights to the optimizer."""
    model: nn.Module = network().train()
    case.technique.regularize(model)  # no gradient yet
    functional.cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    before = state_of(model)
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    case.technique.regularize(model, 0.1)
    if changed := difference(before, state_of(model)):
        return changed + "."
    after = [p.grad for p in model.parameters() if p.grad is not None]
    if not all(gradient.isfinite().all() for gradient in after):
        return "a gradient is not finite."
    moved = any(not torch.equal(a, b) for a, b in zip(gradients, after, strict=True))
    return None if moved else "no gradient moved."


@PRUNER.contract("Leave an ordinary module, without hooks or masks.")
def runs_on_an_engine(case: PrunerCase) -> str | None:
    """ONNX Runtime gives the outputs of the result."""
    backend = registry.create("deploy_backend", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        artifact = backend.export(case.result.model.eval(), (images(2),), Path(folder))
        found = backend.load(artifact)(images().numpy())
    return far_apart(torch.from_numpy(found), case.outputs, _EXACT)
