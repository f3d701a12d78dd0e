"""What users rely on in a quantizer."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from micronet import registry
from micronet.quantization import FakeQuantizer, fake_quantizers, quantized_layers, weight_of
from micronet.quantization.convert import StoredWeight
from micronet.storage.packing import fill_packed, read_packed, save_packed
from micronet.techniques import Quantizer
from micronet.testing.contract import Case, Contracts, shared_contracts
from micronet.testing.networks import (
    difference,
    far_apart,
    images,
    labels,
    network,
    outputs_of,
    state_of,
)
from micronet.testing.ranks import can_fork, on_two_ranks

_EXACT, _ROUNDED = 1e-5, 1e-3
"""Fractions of the outputs' range: sums in another order; a few values rounded the other way."""


@attrs.define(slots=False)
class QuantizerCase(Case):
    """A quantizer under examination."""

    technique: Quantizer
    kind: ClassVar[str] = "quantizer"

    @property
    def example_inputs(self) -> tuple[Tensor]:
        return (images(2),)

    def prepared(self) -> nn.Module:
        """The network, prepared and nothing more."""
        return self.technique.prepare(network(), self.example_inputs)

    @cached_property
    def stepped(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """A model after one training step, and the gradients of that step by name."""
        model = self.prepared().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        functional.cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        optimizer.step()
        optimizer.zero_grad()
        return model.eval(), gradients

    @cached_property
    def trained(self) -> nn.Module:
        return self.stepped[0]

    @cached_property
    def converted(self) -> nn.Module:
        return self.technique.convert(self.trained)

    @cached_property
    def outputs(self) -> Tensor:
        return outputs_of(self.trained, images())

    def told_by_data(self) -> bool:
        return self.technique.needs_data


QUANTIZER: Contracts[QuantizerCase] = Contracts(*shared_contracts())


def check_quantizer(
    quantizer: Quantizer, *, expected_failures: Mapping[str, str] | None = None
) -> None:
    """Verifies every contract of quantizers, on a small network and on ONNX Runtime.

    Args:
        quantizer: An instance, with the options to examine.
        expected_failures: Names of contracts that it is known to break, and why.

    Raises:
        ContractError: What is broken, what was seen and what to do, for all contracts at once.
    """
    QUANTIZER.check(QuantizerCase(quantizer), expected_failures or {})


@QUANTIZER.contract("Prepare a deep copy.")
def leaves_the_given_model_as_it_was(case: QuantizerCase) -> str | None:
    """`prepare` changes nothing in the model that it is given."""
    model, untouched = network(), network()
    case.technique.prepare(model, case.example_inputs)
    changed = difference(state_of(untouched), state_of(model))
    if changed:
        return f"afterwards, in the given model, {changed}."
    types = [(type(a), type(b)) for a, b in zip(untouched.modules(), model.modules(), strict=False)]
    swapped = [f"a {a.__name__} has become a {b.__name__}" for a, b in types if a is not b]
    return f"in the given model {swapped[0]}." if swapped else None


@QUANTIZER.contract(
    "Keep layers under their names, with the parameter `weight`; quantizers go beside them. "
    "`micronet.quantization.place_quantizers` and `quantize_weighted_layers` do."
)
def keeps_state_dict_keys(case: QuantizerCase) -> str | None:
    """Every key of the float model keeps its name, so that float weights load afterwards."""
    float_state = network().state_dict()
    missing = [key for key in float_state if key not in case.prepared().state_dict()]
    if missing:
        return f"the prepared model has no {missing[0]!r}."
    model = case.prepared()
    changed = {key: tensor + 1 for key, tensor in float_state.items()}
    model.load_state_dict(changed, strict=False)
    state = state_of(model)
    return _sentence(difference(changed, {key: state[key] for key in changed}), "after loading,")


@QUANTIZER.contract(
    "Place FakeQuantizers at the weights of the layers; see `micronet.quantization`."
)
def quantizes_weights_or_activations(case: QuantizerCase) -> str | None:
    """A prepared model holds `FakeQuantizer`s: everything else works on those."""
    return None if any(True for _ in fake_quantizers(case.prepared())) else "it holds none."


@QUANTIZER.contract(
    "Let gradients pass the rounding straight through, and scale nothing by zero or infinity."
)
def gives_finite_gradients(case: QuantizerCase) -> str | None:
    """After one training step every weight of a quantized layer has a finite gradient, not zero."""
    model, gradients = case.stepped
    for name, gradient in gradients.items():
        if not gradient.isfinite().all():
            return f"the gradient of {name!r} is not finite."
    for name, _ in quantized_layers(model):
        if f"{name}.weight" not in gradients:
            return f"{name}.weight gets no gradient."
        if not gradients[f"{name}.weight"].any():
            return f"the gradient of {name}.weight is zero everywhere."
    return None


@QUANTIZER.contract("Let the grid follow data in `observe` alone, which eval mode does not call.")
def evaluates_without_changing(case: QuantizerCase) -> str | None:
    """In eval mode the same images give the same outputs, and no state moves."""
    before = state_of(case.trained)
    first, second = outputs_of(case.trained, images()), outputs_of(case.trained, images())
    if not torch.equal(first, second):
        return "the second pass gave other outputs than the first."
    outputs_of(case.trained, 3 * images(seed=1))
    return _sentence(difference(before, state_of(case.trained)), "after a pass in eval mode,")


@QUANTIZER.contract(
    "Put new modules into the mode of their layer, `quantizer.train(layer.training)`."
)
def keeps_the_mode(case: QuantizerCase) -> str | None:
    """A model that is prepared in eval mode is in eval mode, quantizers and all, until training."""
    prepared = case.technique.prepare(network().eval(), case.example_inputs)
    training = [name for name, module in prepared.named_modules() if module.training]
    return f"{training[0]!r} is in train mode." if training else None


@QUANTIZER.contract("Keep in a quantizer nothing that can't be copied, such as a closure or hook.")
def copies_deeply(case: QuantizerCase) -> str | None:
    """A deep copy computes the same, and shares nothing."""
    copied = copy.deepcopy(case.trained)
    if not torch.equal(outputs_of(copied, images()), case.outputs):
        return "the copy gives other outputs."
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    unchanged = torch.equal(outputs_of(case.trained, images()), case.outputs)
    return None if unchanged else "changing the copy changed the original."


@QUANTIZER.contract("Hold everything that the outputs depend on in parameters and buffers.")
def reloads(case: QuantizerCase) -> str | None:
    """The state_dict, loaded into a freshly prepared model, gives the same outputs."""
    again = case.prepared()
    again.load_state_dict(state_of(case.trained))
    return far_apart(outputs_of(again, images()), case.outputs, _EXACT)


@QUANTIZER.contract(
    "Let observers look while `watch` is called, and set the grid in `settle`.",
    applies=QuantizerCase.told_by_data,
)
def calibrates_without_training(case: QuantizerCase) -> str | None:
    """Calibration alone makes a prepared model ready, and batch norms stay as they were."""
    model = case.prepared()
    statistics = {k: v for k, v in state_of(model).items() if "running" in k}
    case.technique.calibrate(model, [images(), images(seed=1)])
    if changed := difference(statistics, {k: model.state_dict()[k].clone() for k in statistics}):
        return f"after calibration {changed}."
    return None if outputs_of(model, images()).isfinite().all() else "outputs are not finite."


@QUANTIZER.contract("Move no scale in `fake_quantize`: `observe`, which ends at freezing, does.")
def freezes(case: QuantizerCase) -> str | None:
    """After `freeze` training no longer moves the grid: the same tensor gives the same codes."""
    model = copy.deepcopy(case.trained)
    case.technique.freeze(model)
    model.train()
    scales = [q.quantize(images()).scale for _, q in _of_activations(model)]
    with torch.no_grad():
        model(10 * images(seed=1))
    after = [q.quantize(images()).scale for _, q in _of_activations(model)]
    moved = [not torch.equal(a, b) for a, b in zip(scales, after, strict=True)]
    return "the scale of an activation moved." if any(moved) else None


@QUANTIZER.contract("`quantize` must give the integers of exactly what `fake_quantize` gives.")
def simulates_what_its_integers_say(case: QuantizerCase) -> str | None:
    """A weight's codes, dequantized, are what the layer computes with."""
    for name, quantizer, weight in _of_weights(case.trained):
        with torch.no_grad():
            simulated = quantizer.fake_quantize(weight)
        if apart := far_apart(quantizer.quantize(weight).dequantize(), simulated, _EXACT):
            return f"at {name!r} {apart}"
    return None


@QUANTIZER.contract("Clamp codes to their width, and tell that width as `bits`.")
def keeps_codes_within_their_bits(case: QuantizerCase) -> str | None:
    """Codes of weights are integers of at most `bits`: 1 means -1 and 1; 1.5 means -1, 0 and 1."""
    for name, quantizer, weight in _of_weights(case.trained):
        tensor = quantizer.quantize(weight)
        codes = tensor.codes
        if tensor.bits != quantizer.bits:
            return f"{name!r} has {quantizer.bits} bits, and its tensor says {tensor.bits}."
        if codes.is_floating_point():
            return f"the codes of {name!r} are {codes.dtype}."
        values = codes.to(torch.int64)
        lowest, highest = int(values.min()), int(values.max())
        allowed = {1: {-1, 1}, 1.5: {-1, 0, 1}}.get(quantizer.bits)
        if allowed is not None:
            found = set(values.flatten().tolist())
            if not found <= allowed:
                return f"{name!r} has {quantizer.bits} bits and the codes {sorted(found)[:5]}."
        elif highest - lowest >= 2 ** int(quantizer.bits):
            return f"{name!r} has {quantizer.bits} bits and codes from {lowest} to {highest}."
    return None


@QUANTIZER.contract("Let `quantize` depend on the weight and the buffers alone.")
def converts_to_the_same_outputs(case: QuantizerCase) -> str | None:
    """The inference form gives the outputs of the simulation."""
    return far_apart(outputs_of(case.converted, images()), case.outputs, _EXACT)


@QUANTIZER.contract("Tell codes, scale, zero point, bits and axis as QuantizedTensor documents.")
def packs(case: QuantizerCase) -> str | None:
    """A packed file gives back a model with identical outputs."""
    if not any(isinstance(module, StoredWeight) for module in case.converted.modules()):
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "packed.safetensors"
        save_packed(case.converted, file)
        again = fill_packed(case.prepared(), read_packed(file)[0], file)
    same = torch.equal(outputs_of(again, images()), outputs_of(case.converted, images()))
    return None if same else "outputs differ."


@QUANTIZER.contract("Implement `rescale` so that the codes stay: the scale takes the factor.")
def survives_the_fuser_bn(case: QuantizerCase) -> str | None:
    """Folding the batch norms into quantized weights leaves the outputs as they were."""
    fused = registry.create("fuser", "bn").fuse(case.trained, case.example_inputs)
    return far_apart(outputs_of(fused, images()), case.outputs, _ROUNDED)


@QUANTIZER.contract(
    "While `torch.onnx.is_in_onnx_export()`, let activations go through "
    "`micronet.quantization.qdq.quantize_dequantize`; weights take care of themselves."
)
def runs_on_an_engine(case: QuantizerCase) -> str | None:
    """ONNX Runtime gives the same class as the simulation for at least 31 of 32 images."""
    backend = registry.create("deploy_backend", "onnxruntime")
    batch = images(32, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        artifact = backend.export(case.converted, case.example_inputs, Path(folder))
        found = torch.from_numpy(backend.load(artifact)(batch.numpy()))
    wanted = outputs_of(case.trained, batch)
    agreeing = int((found.argmax(1) == wanted.argmax(1)).sum())
    return None if agreeing > len(batch) - 2 else f"it did for {agreeing}."


@QUANTIZER.contract(
    "Share what an observer sees across ranks; RangeObserver does, see `micronet.quantization."
    "share`.",
    applies=lambda case: case.technique.needs_data and can_fork(),
)
def agrees_across_ranks(case: QuantizerCase) -> str | None:
    """Ranks of a distributed calibration that see different images end with the same grids."""

    def work(rank: int) -> dict[str, Tensor]:
        model = case.prepared()
        case.technique.calibrate(model, [(1 + rank) * images(seed=rank)])
        return state_of(model)

    first, second = on_two_ranks(work)
    return _sentence(difference(first, second), "between the ranks")


@QUANTIZER.contract("Use no CUDA call at import or in `prepare`; follow the model's device.")
def leaves_cuda_alone(case: QuantizerCase) -> str | None:
    """Preparing and training a model on the CPU starts no CUDA."""
    assert case.trained is not None
    return "CUDA was started." if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]


def _of_weights(model: nn.Module) -> Iterator[tuple[str, FakeQuantizer, Tensor]]:
    for name, layer in quantized_layers(model):
        if isinstance(layer.weight_quantizer, FakeQuantizer):
            yield f"{name}.weight", layer.weight_quantizer, weight_of(layer).detach()


def _of_activations(model: nn.Module) -> list[tuple[str, FakeQuantizer]]:
    weights = {id(layer.weight_quantizer) for _, layer in quantized_layers(model)}
    return [(n, q) for n, q in fake_quantizers(model) if id(q) not in weights]


def _sentence(clause: str | None, opening: str) -> str | None:
    return None if clause is None else f"{opening} {clause}."
