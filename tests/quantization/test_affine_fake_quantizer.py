"""One rounding, told in float and in integers, with a straight-through gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from micronet.errors import QuantizationError

VALUES = st.floats(-1e4, 1e4, width=32)
SHAPES = st_numpy.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4)
TENSORS = st_numpy.arrays("float32", SHAPES, elements=VALUES).map(torch.from_numpy)
BITS = st.integers(2, 16)
AXES = st.sampled_from([None, 0, 1])


@given(
    seen=TENSORS,
    other=st_numpy.arrays("float32", (7,), elements=st.floats(-1e9, 1e9, width=32)),
    bits=BITS,
    symmetric=st.booleans(),
    narrow=st.booleans(),
    axis=AXES,
)
@settings(max_examples=200, deadline=None)
def test_the_integers_say_exactly_what_the_simulation_computes(
    affine, seen, other, bits, symmetric, narrow, axis
):
    quantizer = affine(bits, symmetric=symmetric, narrow=narrow, axis=axis, seen=seen)
    # Values of the range, far beyond it, and ties in the middle between two codes.
    step = quantizer.scale.flatten()[0] / 2
    for x in (seen, seen * torch.from_numpy(other)[0], torch.round(seen) * step):
        tensor = quantizer.quantize(x)
        assert torch.equal(tensor.dequantize(), quantizer.fake_quantize(x))
        assert int(tensor.codes.to(torch.int32).min()) >= quantizer.grid.quant_min
        assert int(tensor.codes.to(torch.int32).max()) <= quantizer.grid.quant_max


@given(seen=TENSORS, bits=BITS, symmetric=st.booleans(), narrow=st.booleans(), axis=AXES)
@settings(max_examples=50, deadline=None)
def test_a_value_on_the_grid_stays_where_it_is(affine, seen, bits, symmetric, narrow, axis):
    quantizer = affine(bits, symmetric=symmetric, narrow=narrow, axis=axis, seen=seen)
    once = quantizer.fake_quantize(seen)
    assert torch.equal(quantizer.fake_quantize(once), once)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize(
    ("symmetric", "ends"), [(True, (-127.0, 127.0)), (False, (-1.0, 254.0))], ids=str
)
def test_a_value_between_two_codes_goes_to_the_even_one(affine, axis, symmetric, ends):
    quantizer = affine(8, symmetric=symmetric, axis=axis, seen=torch.tensor([ends]))
    assert quantizer.scale.flatten()[0] == 1
    ties = torch.tensor([[0.5, 1.5, 2.5, 3.5, 99.5, 100.5, -0.5]])
    assert quantizer.fake_quantize(ties).tolist() == [[0, 2, 2, 4, 100, 100, 0]]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_the_gradient_passes_inside_the_range_and_stops_where_the_code_was_clamped(
    affine, symmetric, axis
):
    seen = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    quantizer = affine(4, symmetric=symmetric, axis=axis, seen=seen)
    x = torch.tensor([[-5.0, 0.6], [0.0, 5.0]], requires_grad=True)
    (3 * quantizer.fake_quantize(x)).sum().backward()
    assert x.grad.tolist() == [[0.0, 3.0], [3.0, 0.0]]


def test_each_channel_has_a_scale_of_its_own(affine):
    x = torch.stack([torch.linspace(-1, 1, 9), torch.linspace(-100, 100, 9)])
    quantizer = affine(8, narrow=True, axis=0, seen=x)
    assert quantizer.scale.tolist() == pytest.approx([1 / 127, 100 / 127])
    assert (quantizer.fake_quantize(x) - x)[0].abs().max() < 1 / 127


def test_a_quantizer_without_data_says_so_and_what_to_do(affine):
    quantizer = affine().eval()
    assert not quantizer.ready
    with pytest.raises(QuantizationError, match=r"seen no data.*[Cc]alibrate"):
        quantizer(torch.ones(2))


def test_calibrating_watches_and_passes_values_on_unrounded(affine):
    quantizer = affine().eval()
    quantizer.mode = "calibrate"
    x = torch.tensor([0.3, -127.0])
    assert torch.equal(quantizer(x), x)
    quantizer.mode = "quantize"
    assert quantizer(x).tolist() == [0, -127]


def test_switched_off_it_neither_watches_nor_rounds(affine):
    quantizer = affine().train()
    quantizer.mode = "off"
    x = torch.tensor([0.3, -1.0])
    assert torch.equal(quantizer(x), x)
    assert not quantizer.ready


def test_the_grid_follows_the_data_in_training_and_stays_in_evaluation(affine):
    quantizer = affine(seen=torch.tensor([1.0]))
    quantizer.eval()(torch.tensor([50.0]))
    assert float(quantizer.scale) == pytest.approx(1 / 127)
    quantizer.train()(torch.tensor([2.0]))
    assert float(quantizer.scale) == pytest.approx(2 / 127)


def test_a_frozen_grid_stays_in_training_too(affine):
    quantizer = affine(seen=torch.tensor([1.0])).train()
    quantizer.frozen = True
    quantizer(torch.tensor([50.0]))
    assert float(quantizer.scale) == pytest.approx(1 / 127)


def test_a_whole_tensor_is_measured_anew_each_time(affine):
    quantizer = affine(whole=True, seen=torch.tensor([4.0])).train()
    quantizer(torch.tensor([2.0]))
    assert float(quantizer.scale) == pytest.approx(2 / 127)


@pytest.mark.parametrize("axis", [None, 1])
def test_an_empty_batch_changes_nothing_and_comes_back_empty(affine, axis):
    quantizer = affine(axis=axis, seen=torch.ones(4, 3)).train()
    before = quantizer.scale.clone()
    assert quantizer(torch.ones(0, 3)).shape == (0, 3)
    assert torch.equal(quantizer.scale, before)
