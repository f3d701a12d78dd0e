"""Codes, scales and zero points follow the documented formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from micronet.quantization import Grid

ALL_BITS = range(2, 17)
FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
GRIDS = st.builds(Grid, st.sampled_from(ALL_BITS), st.booleans(), st.booleans())


def scalars(low, high):
    return torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32)


def nearest_on(grid, x, scale, zero_point):
    code = (torch.round(x / scale) + zero_point).clamp(grid.quant_min, grid.quant_max)
    return (code - zero_point) * scale


@pytest.mark.parametrize("bits", ALL_BITS)
def test_symmetric_codes_use_the_whole_signed_range(bits):
    grid = Grid(bits, symmetric=True)
    assert (grid.quant_min, grid.quant_max) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_narrow_symmetric_codes_are_closed_under_negation(bits):
    grid = Grid(bits, symmetric=True, narrow=True)
    largest = 2 ** (bits - 1) - 1
    assert (grid.quant_min, grid.quant_max) == (-largest, largest)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_asymmetric_codes_start_at_zero(bits):
    assert Grid(bits, symmetric=False).quant_min == 0
    assert Grid(bits, symmetric=False).quant_max == 2**bits - 1
    assert Grid(bits, symmetric=False, narrow=True).quant_max == 2**bits - 2


@given(grid=GRIDS, ends=st.tuples(FINITE, FINITE))
@settings(max_examples=100, deadline=None)
def test_zero_has_a_code_of_its_own_on_every_grid(grid, ends):
    scale, zero_point = grid.scale_and_zero_point(*scalars(min(ends), max(ends)))
    assert grid.quant_min <= int(zero_point) <= grid.quant_max
    assert nearest_on(grid, torch.tensor(0.0), scale, zero_point) == 0


@given(bits=st.sampled_from(ALL_BITS), narrow=st.booleans(), ends=st.tuples(FINITE, FINITE))
@settings(max_examples=50, deadline=None)
def test_a_symmetric_scale_is_the_largest_magnitude_over_the_largest_code(bits, narrow, ends):
    grid = Grid(bits, symmetric=True, narrow=narrow)
    scale, zero_point = grid.scale_and_zero_point(*scalars(min(ends), max(ends)))
    wanted = max(abs(ends[0]), abs(ends[1])) / (2 ** (bits - 1) - 1)
    assert float(scale) == pytest.approx(max(wanted, 2.0**-40), rel=1e-6)
    assert zero_point == 0


@given(
    bits=st.sampled_from(ALL_BITS),
    narrow=st.booleans(),
    ends=st.tuples(FINITE, FINITE),
)
@settings(max_examples=50, deadline=None)
def test_an_asymmetric_grid_spans_the_range_widened_to_zero(bits, narrow, ends):
    grid = Grid(bits, symmetric=False, narrow=narrow)
    scale, zero_point = grid.scale_and_zero_point(*scalars(min(ends), max(ends)))
    low, high = np.float32(min(*ends, 0)), np.float32(max(*ends, 0))
    levels = 2**bits - 1 - narrow
    wanted = np.maximum(high / levels - low / levels, np.float32(2.0**-40))
    assert float(scale) == pytest.approx(float(wanted), rel=1e-6)
    # One code of slack: low / scale may sit on a tie that the last bit of the scale decides.
    assert abs(int(zero_point) - (-float(low) / float(wanted))) <= 0.5 + 1e-2


@given(grid=GRIDS, ends=st.tuples(st.floats(-100, 100, width=32), st.floats(-100, 100, width=32)))
@settings(max_examples=100, deadline=None)
def test_every_value_of_the_range_is_at_most_a_step_away_from_its_code(grid, ends):
    low, high = scalars(min(ends), max(ends))
    scale, zero_point = grid.scale_and_zero_point(low, high)
    x = torch.linspace(float(low), float(high), 101)
    error = (nearest_on(grid, x, scale, zero_point) - x).abs().max()
    steps = 0.5 if grid.symmetric else 1.0  # the zero point's own rounding may cost another half
    assert error <= steps * scale * (1 + 1e-2) + 1e-12


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 0), (0.3, 0.3), (-0.3, -0.3), (0, 1e-38), (-1e-45, 1e-45), (2, 3), (-3, -2), (0, 5)],
    ids=str,
)
def test_a_degenerate_range_gets_a_usable_grid(symmetric, low, high):
    scale, zero_point = Grid(8, symmetric).scale_and_zero_point(*scalars(low, high))
    assert scale.isfinite()
    assert scale > 0
    assert scale.reciprocal().isfinite()
    ends = torch.stack(scalars(low, high))
    error = nearest_on(Grid(8, symmetric), ends, scale, zero_point) - ends
    assert error.abs().max() <= scale


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_largest_finite_range_gets_a_finite_scale(symmetric):
    largest = torch.finfo(torch.float32).max
    scale, _ = Grid(8, symmetric).scale_and_zero_point(*scalars(-largest, largest))
    assert scale.isfinite()


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_grid_per_channel_equals_the_grids_of_the_channels(symmetric):
    low, high = torch.tensor([-1.0, 0.0, -2.0, 0.5]), torch.tensor([3.0, 0.0, -1.0, 0.7])
    grid = Grid(8, symmetric)
    scales, zero_points = grid.scale_and_zero_point(low, high)
    for index in range(4):
        scale, zero_point = grid.scale_and_zero_point(low[index], high[index])
        assert (scales[index], zero_points[index]) == (scale, zero_point)
