"""Each contract is broken by a technique that is made to break it, and says so to its author."""

import copy

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from micronet import registry
from micronet.pruning import PruningPlan, apply_plan
from micronet.quantization import AffineFakeQuantizer, fake_quantizers
from micronet.techniques import Observer, PruningResult, Runner, Scheme
from micronet.testing import (
    BACKEND,
    FUSER,
    OBSERVER,
    PRUNER,
    QUANTIZER,
    ContractError,
    DeployBackendCase,
    FuserCase,
    ObserverCase,
    PrunerCase,
    QuantizerCase,
    check_fuser,
    check_observer,
)

IAO, WbWtAb = registry.get("quantizer", "iao"), registry.get("quantizer", "wbwtab")
MinMax, BatchNormFuser = registry.get("observer", "minmax"), registry.get("fuser", "bn")
Normal = registry.get("pruner", "normal")
OnnxRuntime = registry.get("deploy_backend", "onnxruntime")


def broken(contracts, case, name):
    """What the contract of that name says of a technique that must break it."""
    (contract,) = [each for each in contracts if each.name == name]
    assert contract.applies(case)
    with pytest.raises(ContractError) as caught:
        contract.verify(case)
    said = str(caught.value)
    assert name in said
    assert type(case.technique).__name__ in said
    assert contract.remedy in said
    return said


class Unserializable(IAO):
    """Options that JSON does not know."""

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


class ChangesTheModel(IAO):
    def prepare(self, model, example_inputs):
        model.stem.weight.data.mul_(2)
        return super().prepare(model, example_inputs)


class SwapsInPlace(IAO):
    def prepare(self, model, example_inputs):
        prepared = super().prepare(model, example_inputs)
        model.relu = nn.ReLU6()
        return prepared


class RenamesKeys(IAO):
    def prepare(self, model, example_inputs):
        return nn.Sequential(super().prepare(model, example_inputs))


class DoesNothing(IAO):
    def prepare(self, model, example_inputs):
        return copy.deepcopy(model)


def altered(base, change):
    """A quantizer that does something to each prepared model."""

    class Altered(base):
        def prepare(self, model, example_inputs):
            prepared = super().prepare(model, example_inputs)
            change(prepared)
            return prepared

    return Altered()


def in_class(method, replacement):
    """Gives every affine quantizer of a model another method."""

    def change(model):
        for _, quantizer in fake_quantizers(model):
            if isinstance(quantizer, AffineFakeQuantizer):
                kind = type(quantizer)
                quantizer.__class__ = type("Broken", (kind,), {method: replacement(kind)})

    return change


def no_gradient(_kind):
    return lambda self, x: AffineFakeQuantizer.fake_quantize(self, x.detach()) + 0 * x


def drifting(_kind):
    def fake_quantize(self, x):
        self.settle()
        self.scale = self.scale * 1.01
        return AffineFakeQuantizer.fake_quantize(self, x)

    return fake_quantize


def off_by_one(_kind):
    def quantize(self, x):
        tensor = AffineFakeQuantizer.quantize(self, x)
        return attrs.evolve(tensor, codes=tensor.codes - 1)

    return quantize


def too_wide(_kind):
    def quantize(self, x):
        return attrs.evolve(AffineFakeQuantizer.quantize(self, x), bits=4)

    return quantize


def uncopyable(_kind):
    return lambda self, memo: self.no_such_thing


def keeps_its_scale_at_folding(_kind):
    def rescale(self, factor):
        self.axis, self.observer = 0, None

    return rescale


def unsaved_scales(model):
    for _, quantizer in fake_quantizers(model):
        quantizer._non_persistent_buffers_set.update(("scale", "zero_point"))


def own_observers(model):
    for _, quantizer in fake_quantizers(model):
        quantizer.observer.synchronized = False


def forever_watching(model):
    model.register_forward_hook(lambda *_: model.stem_bn.running_mean.add_(1))


def inexportable(_kind):
    return lambda self, x: torch.from_numpy(
        AffineFakeQuantizer.fake_quantize(self, x).detach().numpy()
    )


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [
        ("options_survive_json", Unserializable()),
        ("leaves_the_given_model_as_it_was", ChangesTheModel()),
        ("leaves_the_given_model_as_it_was", SwapsInPlace()),
        ("keeps_state_dict_keys", RenamesKeys()),
        ("quantizes_weights_or_activations", DoesNothing()),
        ("gives_finite_gradients", altered(IAO, in_class("fake_quantize", no_gradient))),
        ("evaluates_without_changing", altered(IAO, in_class("fake_quantize", drifting))),
        ("keeps_the_mode", altered(IAO, nn.Module.train)),
        ("freezes", altered(IAO, in_class("fake_quantize", drifting))),
        ("copies_deeply", altered(IAO, in_class("__deepcopy__", uncopyable))),
        ("reloads", altered(IAO, unsaved_scales)),
        ("calibrates_without_training", altered(IAO, forever_watching)),
        ("simulates_what_its_integers_say", altered(IAO, in_class("quantize", off_by_one))),
        ("converts_to_the_same_outputs", altered(IAO, in_class("quantize", off_by_one))),
        ("keeps_codes_within_their_bits", altered(IAO, in_class("quantize", too_wide))),
        ("packs", altered(IAO, in_class("quantize", too_wide))),
        ("survives_the_fuser_bn", altered(IAO, in_class("rescale", keeps_its_scale_at_folding))),
        ("runs_on_an_engine", altered(IAO, in_class("fake_quantize", inexportable))),
        ("agrees_across_ranks", altered(IAO, own_observers)),
    ],
)
def test_a_broken_quantizer_is_told(name, quantizer):
    broken(QUANTIZER, QuantizerCase(quantizer), name)


def observing(module_class):
    @attrs.frozen(kw_only=True)
    class Broken(Observer):
        def build(self, axis=None, *, grid=None):
            return module_class(axis)

    return Broken()


Extremes = type(MinMax().build())


class Wider(Extremes):
    def range(self):
        return 2 * self.low, 2 * self.high


class Mixing(Extremes):
    def forward(self, x):
        super().forward(x)
        self.high.fill_(self.high.max())


class DividingByItsRange(Extremes):
    def range(self):
        spread = self.high - self.low
        return self.low / spread * spread, self.high / spread * spread


class FailingOnNothing(Extremes):
    def forward(self, x):
        x.amax()
        super().forward(x)


class Replacing(Extremes):
    def forward(self, x):
        super().forward(x.nan_to_num(0, 1, -1))


class Remembering(Extremes):
    def restart(self):
        pass


class Unsaved(Extremes):
    def forward(self, x):
        super().forward(x)
        self._non_persistent_buffers_set.update(self._buffers)


class Random(Extremes):
    def range(self):
        return self.low * torch.rand(()), self.high


class Graph(Extremes):
    def forward(self, x):
        self._buffers["low"], self._buffers["high"] = x.amin(), x.amax()


class Alone(Extremes):
    def forward(self, x):
        self.synchronized = False
        super().forward(x)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("covers_a_part_of_what_it_saw", Wider),
        ("keeps_channels_apart", Mixing),
        ("survives_a_constant", DividingByItsRange),
        ("passes_over_an_empty_tensor", FailingOnNothing),
        ("tells_nan_and_inf", Replacing),
        ("forgets_at_restart", Remembering),
        ("reloads", Unsaved),
        ("copies_and_repeats", Random),
        ("holds_no_graph", Graph),
        ("agrees_across_ranks", Alone),
    ],
)
def test_a_broken_observer_is_told(name, module):
    broken(OBSERVER, ObserverCase(observing(module)), name)


class PrunesInPlace(Normal):
    def prune(self, model, example_inputs):
        model.stem.weight.data.zero_()
        return super().prune(model, example_inputs)


class Masks(Normal):
    def prune(self, model, example_inputs):
        masked = copy.deepcopy(model)
        masked.stem.weight.data[:8] = 0
        return PruningResult(masked, PruningPlan({}), {})


def changed_result(**changes):
    class Changed(Normal):
        def prune(self, model, example_inputs):
            result = super().prune(model, example_inputs)
            made = {name: change(result) for name, change in changes.items()}
            return attrs.evolve(result, **made)

    return Changed(percent=0.4)


def detached(result):
    for parameter in result.model.parameters():
        parameter.requires_grad_(False)
    return result.model


def random_plan(result):
    layers = dict(result.plan.layers)
    name = sorted(layers)[int(torch.randint(len(layers), ()))]
    return PruningPlan({**layers, f"{name}{torch.rand(())}": layers[name]})


class MovesWeights(Normal):
    def regularize(self, model, strength=1e-4):
        model.stem.weight.data.mul_(0.9)


class MixesChannels(Normal):
    def prune(self, model, example_inputs):
        result = super().prune(model, example_inputs)
        layers = {
            name: attrs.evolve(kept, inputs=kept.inputs[::-1])
            for name, kept in result.plan.layers.items()
        }
        plan = PruningPlan(layers)
        return attrs.evolve(result, plan=plan, model=apply_plan(model, plan))


class LooksAtValues(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) if float(x.sum()) < 1e9 else x


@pytest.mark.parametrize(
    ("name", "pruner"),
    [
        ("leaves_the_given_model_as_it_was", PrunesInPlace(percent=0.4)),
        ("makes_it_smaller", Masks(percent=0.4)),
        ("trains", changed_result(model=detached)),
        ("repeats_by_its_plan", changed_result(plan=lambda _: PruningPlan({}))),
        ("computes_what_is_left", MixesChannels(percent=0.4)),
        ("reloads", changed_result(plan=lambda _: PruningPlan({}))),
        ("repeats", changed_result(plan=random_plan)),
        ("names_layers", changed_result(reasons=lambda _: {"conv": "it is no layer"})),
        ("regularizes_gradients_alone", MovesWeights(percent=0.4)),
        ("runs_on_an_engine", changed_result(model=lambda result: LooksAtValues(result.model))),
    ],
)
def test_a_broken_pruner_is_told(name, pruner):
    broken(PRUNER, PrunerCase(pruner), name)


class FusesInPlace(BatchNormFuser):
    def fuse(self, model, example_inputs):
        model.stem_bn.weight.data.zero_()
        return super().fuse(model, example_inputs)


class DropsBatchNorms(BatchNormFuser):
    def fuse(self, model, example_inputs):
        fused = copy.deepcopy(model)
        fused.stem_bn = nn.Identity()
        return fused


class LooksAtWeights(BatchNormFuser):
    def fuse(self, model, example_inputs):
        positive = (model.stem_bn.weight > 0).all()
        return super().fuse(model, example_inputs) if positive else copy.deepcopy(model)


class LeavesHooks(BatchNormFuser):
    def fuse(self, model, example_inputs):
        return LooksAtValues(super().fuse(model, example_inputs))


@pytest.mark.parametrize(
    ("name", "fuser"),
    [
        ("leaves_the_given_model_as_it_was", FusesInPlace()),
        ("keeps_outputs", DropsBatchNorms()),
        ("follows_structure_alone", LooksAtWeights()),
        ("runs_on_an_engine", LeavesHooks()),
    ],
)
def test_a_broken_fuser_is_told(name, fuser):
    broken(FUSER, FuserCase(fuser), name)


class Wrapped(Runner):
    def __init__(self, runner):
        super().__init__(runner.signature)
        self.runner = runner
        self.outputs = None

    def run(self, inputs):
        return self.runner.run(inputs)


def running(**changes):
    class Broken(OnnxRuntime):
        def start(self, artifact, *, threads):
            return type("Changed", (Wrapped,), changes)(super().start(artifact, threads=threads))

    return Broken()


def fixed_batch(self, inputs):
    assert len(inputs["input"]) == 2
    return self.runner.run(inputs)


def reused(self, inputs):
    (outputs,) = self.runner.run(inputs)
    if self.outputs is None:
        self.outputs = outputs
    count = min(len(outputs), len(self.outputs))
    self.outputs[:count] = outputs[:count]
    return [self.outputs]


def reversed_classes(self, inputs):
    return [outputs[:, ::-1].copy() for outputs in self.runner.run(inputs)]


def the_first_alone(self, *inputs):
    return self.run(self.signature.arrays(inputs))[0]


def unchecked(self, *inputs):
    return self.signature.structured(self.run({"input": inputs[0].astype(np.float32)}))


class Silent(OnnxRuntime):
    def available(self):
        return "no"


class RefusesItself(OnnxRuntime):
    fast = Scheme(a_symmetric=True)

    def unsuitable(self, scheme):
        return "It runs asymmetric activations alone." if scheme.a_symmetric else None


class PathsOnly(OnnxRuntime):
    def export(self, model, example_inputs, directory, *, dynamic=("batch",)):
        directory.mkdir()
        return super().export(model, example_inputs, directory, dynamic=dynamic)


class WithoutCard(OnnxRuntime):
    def export(self, model, example_inputs, directory, *, dynamic=("batch",)):
        made = super().export(model, example_inputs, directory, dynamic=dynamic)
        return attrs.evolve(made, settings={"where": str(directory)})


class TrainsTheModel(OnnxRuntime):
    def export(self, model, example_inputs, directory, *, dynamic=("batch",)):
        made = super().export(model, example_inputs, directory, dynamic=dynamic)
        model.train()(example_inputs[0])
        return made


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("says_what_is_missing", Silent()),
        ("runs_what_it_is_fast_with", RefusesItself()),
        ("moves", WithoutCard()),
        ("agrees_at_any_batch_size", running(run=fixed_batch)),
        ("agrees_on_integers", running(run=reversed_classes)),
        ("leaves_the_given_model_as_it_was", TrainsTheModel()),
        (
            "takes_several_inputs_and_gives_all_outputs",
            running(__call__=the_first_alone),
        ),
        ("refuses_what_does_not_fit", running(__call__=unchecked)),
        ("takes_paths_in_text", PathsOnly()),
        ("keeps_calls_apart", running(run=reused)),
    ],
)
def test_a_broken_backend_is_told(name, backend):
    broken(BACKEND, DeployBackendCase(backend), name)


def test_a_technique_that_imports_torch_is_told(tmp_path, monkeypatch):
    (tmp_path / "heavy_observer.py").write_text(
        "import attrs, torch\n"
        "from micronet.techniques import Observer\n"
        "@attrs.frozen\n"
        "class Heavy(Observer):\n"
        "    def build(self, axis=None, *, grid=None): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import heavy_observer

    said = broken(OBSERVER, ObserverCase(heavy_observer.Heavy()), "loads_without_torch")
    assert "it imports torch" in said


def test_a_backend_whose_engine_needs_torch_is_told(tmp_path, monkeypatch):
    (tmp_path / "torch_backend.py").write_text(
        "from micronet import registry\n"
        "class Heavy(registry.get('deploy_backend', 'onnxruntime')):\n"
        "    def load(self, artifact, *, threads=None):\n"
        "        import torch\n"
        "        return super().load(artifact, threads=threads)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import torch_backend

    said = broken(BACKEND, DeployBackendCase(torch_backend.Heavy()), "runs_without_torch")
    assert "torch" in said


def test_all_that_is_broken_is_told_at_once():
    @attrs.frozen(kw_only=True)
    class Both(Observer):
        def build(self, axis=None, *, grid=None):
            return type("Both", (Wider, Unsaved), {})(axis)

    with pytest.raises(ContractError) as caught:
        check_observer(Both())
    assert "covers_a_part_of_what_it_saw" in str(caught.value)
    assert "reloads" in str(caught.value)


def test_a_known_failure_passes_until_it_is_mended():
    check_observer(
        observing(Wider), expected_failures={"covers_a_part_of_what_it_saw": "on purpose"}
    )
    with pytest.raises(ContractError, match=r"keeps the contract reloads.*on purpose"):
        check_observer(
            observing(Wider),
            expected_failures={"covers_a_part_of_what_it_saw": "x", "reloads": "on purpose"},
        )


def test_a_misspelt_contract_is_answered_with_the_right_one():
    with pytest.raises(ContractError, match="Did you mean 'keeps_outputs'"):
        check_fuser(BatchNormFuser(), expected_failures={"keep_outputs": "?"})
