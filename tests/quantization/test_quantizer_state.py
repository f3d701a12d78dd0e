"""Saving, loading and copying quantizers."""

import copy

import pytest
import torch


@pytest.mark.parametrize("observer", ["minmax", "moving_average"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_loaded_quantizer_rounds_and_goes_on_like_the_saved_one(affine, observer, axis):
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    saved = affine(6, symmetric=False, axis=axis, observer=observer, seen=x)
    loaded = affine(6, symmetric=False, axis=axis, observer=observer)
    loaded.load_state_dict(saved.state_dict())
    assert loaded.ready
    assert torch.equal(loaded.fake_quantize(x), saved.fake_quantize(x))
    for quantizer in (saved, loaded):
        quantizer.train()(5 * x)
    assert torch.equal(loaded.scale, saved.scale)


def test_a_quantizer_saved_without_data_is_loaded_without(affine):
    loaded = affine(seen=torch.ones(2))
    loaded.load_state_dict(affine().state_dict())
    assert not loaded.ready


def test_a_copy_has_a_grid_of_its_own(affine):
    original = affine(seen=torch.tensor([1.0]))
    copied = copy.deepcopy(original)
    copied.train()(torch.tensor([9.0]))
    assert float(original.scale) == pytest.approx(1 / 127)
    assert float(copied.scale) == pytest.approx(9 / 127)


def test_a_rescaled_quantizer_is_loaded_with_its_scales(affine):
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    factor = torch.tensor([2.0, -1.0, 0.5])
    saved, loaded = affine(8, narrow=True, seen=weight), affine(8, narrow=True, seen=weight.abs())
    saved.rescale(factor)
    loaded.rescale(torch.ones(3))
    loaded.load_state_dict(saved.state_dict())
    scaled = weight * factor[:, None]
    assert torch.equal(loaded.fake_quantize(scaled), saved.fake_quantize(scaled))


def test_a_float_state_dict_loads_strictly_into_a_prepared_model(small_net, images, iao):
    state = copy.deepcopy(small_net.state_dict())
    prepared = iao().prepare(type(small_net)(), (images,))
    prepared.load_state_dict(state, strict=True)
    for key, tensor in state.items():
        assert torch.equal(prepared.state_dict()[key], tensor)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_prepared_models_state_loads_into_a_fresh_one(
    small_net, images, calibrated, iao, per_channel
):
    saved = calibrated(small_net, images, per_channel=per_channel)
    loaded = iao(per_channel=per_channel).prepare(type(small_net)(), (images,)).eval()
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(images), saved(images))
