"""A quantizer follows a weight that is multiplied by a factor per channel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

MAGNITUDES = st.floats(2.0**-20, 2.0**10, width=32)
FACTORS = st.one_of(st.just(0.0), MAGNITUDES, MAGNITUDES.map(lambda f: -f))


@given(
    weight=st_numpy.arrays("float32", (4, 6), elements=st.floats(-10, 10, width=32)),
    factor=st.lists(FACTORS, min_size=4, max_size=4),
    bits=st.integers(2, 16),
    symmetric=st.booleans(),
    narrow=st.booleans(),
    per_channel=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_codes_survive_a_factor_of_any_sign(
    affine, weight, factor, bits, symmetric, narrow, per_channel
):
    weight, factor = torch.from_numpy(weight), torch.tensor(factor)
    axis = 0 if per_channel else None
    quantizer = affine(bits, symmetric=symmetric, narrow=narrow, axis=axis, seen=weight)
    before = quantizer.quantize(weight)
    quantizer.rescale(factor)
    scaled = before.dequantize() * factor[:, None]
    after = quantizer.quantize(scaled)

    from_zero = before.codes.to(torch.int32) - before.zero_point.reshape(-1, 1)
    wanted = from_zero * factor.sign().to(torch.int32)[:, None]
    assert torch.equal(after.codes.to(torch.int32) - after.zero_point[:, None], wanted)
    assert torch.allclose(after.dequantize(), scaled, rtol=1e-6, atol=0)
    assert after.codes.dtype == before.codes.dtype


def test_one_scale_becomes_one_for_each_channel(affine):
    quantizer = affine(8, narrow=True, seen=torch.tensor([[1.0], [-127.0]]))
    quantizer.rescale(torch.tensor([2.0, -3.0]))
    assert quantizer.axis == 0
    assert quantizer.scale.tolist() == pytest.approx([2, 3])


def test_a_rescaled_grid_no_longer_follows_the_weight(affine):
    quantizer = affine(8, whole=True, axis=0, seen=torch.ones(2, 3)).train()
    quantizer.rescale(torch.tensor([1.0, 0.0]))
    before = quantizer.scale.clone()
    out = quantizer(torch.full((2, 3), 50.0))
    assert torch.equal(quantizer.scale, before)
    assert out.isfinite().all()
