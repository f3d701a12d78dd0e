"""How the learning rate goes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micronet.training.schedules import Schedule

NAMES = ["one_cycle", "cosine", "step", "constant"]
schedules = st.builds(
    Schedule, st.sampled_from(NAMES), st.none() | st.floats(0, 0.9), st.integers(1, 500)
)


@given(schedules)
def test_the_rate_is_never_above_the_highest_nor_below_zero(schedule):
    factors = [schedule(step) for step in range(schedule.steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)


@given(st.sampled_from(NAMES), st.floats(0.05, 0.9))
def test_the_rate_climbs_as_long_as_it_warms_up(name, warmup):
    schedule = Schedule(name, warmup, 200)
    climb = [schedule(step) for step in range(math.ceil(200 * warmup))]
    assert climb == sorted(climb)
    assert climb[0] == pytest.approx(1 / 25)


def test_one_cycle_is_at_its_highest_after_three_tenths_and_ends_at_zero():
    schedule = Schedule("one_cycle", None, 1000)
    assert [schedule(0), schedule(300), schedule(1000)] == pytest.approx([1 / 25, 1, 0])


def test_a_step_falls_to_a_tenth_twice():
    schedule = Schedule("step", None, 100)
    rates = [schedule(step) for step in (0, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_without_a_climb_a_cosine_begins_at_its_highest():
    assert Schedule("cosine", None, 10)(0) == 1
    assert Schedule("constant", None, 10)(9) == 1
