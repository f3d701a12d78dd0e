"""A batch with NaN or Inf in training: named, and without a trace."""

import copy

import pytest
import torch
from torch import nn

from micronet.errors import QuantizationError
from micronet.quantization import ObserverModule
from micronet.registry import create

OBSERVERS = ["minmax", "moving_average", "percentile", "mse", "entropy"]


@pytest.fixture(params=OBSERVERS)
def prepared(request, small_net, images, iao):
    """Trained for a step."""
    prepared = iao(a_observer=request.param).prepare(small_net, (images,)).train()
    prepared(images)
    return prepared


def quantizers_state(model):
    return {name: b.clone() for name, b in model.named_buffers() if "quantizer" in name}


def equal(state, other):
    return all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_bad_batch_is_refused_with_its_place_and_leaves_no_trace(prepared, images, bad):
    before = quantizers_state(prepared)
    broken = images.clone()
    broken[3, 1, 2, 2] = bad
    with pytest.raises(QuantizationError, match=r"NaN or Inf at 'activation_quantizers\.x'"):
        prepared(broken)
    assert equal(quantizers_state(prepared), before)
    assert prepared(images).isfinite().all()


def test_the_first_batch_may_be_the_bad_one(small_net, images, iao):
    prepared, twin = (iao().prepare(small_net, (images,)).train() for _ in range(2))
    with pytest.raises(QuantizationError, match="NaN or Inf at"):
        prepared(images * torch.nan)
    for model in (prepared, twin):
        torch.manual_seed(0)
        model(images)
    assert equal(quantizers_state(prepared), quantizers_state(twin))


def test_a_bad_weight_is_named(prepared, images):
    scale = prepared.body.weight_quantizer.scale.clone()
    prepared.body.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(QuantizationError, match=r"NaN or Inf at 'body\.weight_quantizer'"):
        prepared(images)
    assert torch.equal(prepared.body.weight_quantizer.scale, scale)


def test_a_weight_with_one_scale_is_named(small_net, images, iao):
    prepared = iao(per_channel=False, fold_bn="running").prepare(small_net, (images,)).train()
    prepared.body.weight.data[0, 0, 0, 0] = torch.inf
    with pytest.raises(QuantizationError, match=r"NaN or Inf at 'body\.weight_quantizer'"):
        prepared(images)


def test_the_name_is_that_in_the_model_that_is_called(prepared, images):
    sequence = nn.Sequential(nn.Identity(), prepared)
    with pytest.raises(QuantizationError, match=r"'1\.activation_quantizers\.x'"):
        sequence(images * torch.inf)


def test_a_layer_that_quantizes_its_own_input_is_named(small_net, images, iao):
    prepared = iao().prepare(small_net, ()).train()
    with pytest.raises(QuantizationError, match=r"'stem\.input_quantizer'"):
        prepared(images * torch.inf)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("observer", OBSERVERS)
def test_the_largest_finite_numbers_are_none(affine, observer, axis):
    quantizer = affine(symmetric=False, observer=observer, axis=axis).train()
    assert quantizer(torch.full((2, 3), 3e38) * torch.tensor([-1.0, 0.0, 1.0])).isfinite().all()
    assert quantizer.ready


class Ends(ObserverModule):
    """An observer of somebody who did not think of it."""

    def forward(self, x):
        self.ends = torch.aminmax(x)

    def range(self):
        return self.ends

    def restart(self):
        pass


def test_an_observer_that_takes_all_leaves_the_scale_as_it_was(affine, images):
    quantizer = affine(seen=images).train()
    quantizer.observer = Ends()
    scale = quantizer.scale.clone()
    with pytest.raises(QuantizationError, match="NaN or Inf at the AffineFakeQuantizer"):
        quantizer(images * torch.nan)
    assert torch.equal(quantizer.scale, scale)


def test_a_frozen_grid_minds_nothing(prepared, images):
    create("quantizer", "iao").freeze(prepared)
    before = quantizers_state(prepared)
    prepared(images * torch.inf)
    assert equal(quantizers_state(prepared), before)


def test_a_compiled_step_leaves_no_trace(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,)).train()
    twin = copy.deepcopy(prepared)
    compiled = torch.compile(prepared, backend="aot_eager", fullgraph=True)
    compiled(images)
    before = quantizers_state(prepared.activation_quantizers.x)
    compiled(images * torch.nan)
    assert equal(quantizers_state(prepared.activation_quantizers.x), before)
    with pytest.raises(QuantizationError, match="NaN or Inf"):
        twin(images * torch.nan)


def test_a_gradient_may_be_infinite(prepared, images):
    """As it is while a GradScaler looks for its scale: the optimizer leaves that step out."""
    before = quantizers_state(prepared)
    (prepared(images).sum() * torch.inf).backward()
    prepared.zero_grad()
    assert prepared(images).isfinite().all()
    assert before.keys() == quantizers_state(prepared).keys()
