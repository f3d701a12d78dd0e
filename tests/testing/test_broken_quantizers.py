"""Each contract of quantizers, broken by one that is made to break it."""

import copy

import attrs
import pytest
import torch
from broken import broken
from torch import nn

from micronet import registry
from micronet.quantization import AffineFakeQuantizer, fake_quantizers
from micronet.testing import (
    QUANTIZER,
    QuantizerCase,
)

IAO, WbWtAb = registry.get("quantizer", "iao"), registry.get("quantizer", "wbwtab")


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
