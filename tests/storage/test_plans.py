"""Pruning plans as a short text, and back."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micronet.errors import DataError
from micronet.pruning import Kept, PruningPlan
from micronet.storage.plans import read_plans, write_plans

CHANNELS = st.one_of(
    st.lists(st.integers(0, 700), max_size=40).map(tuple),
    st.sets(st.integers(0, 700), max_size=40).map(sorted).map(tuple),
    st.integers(0, 700).map(lambda count: tuple(range(count))),
)
KEPT = st.builds(Kept, CHANNELS, CHANNELS, st.integers(1, 8), st.integers(0, 3))
PLANS = st.lists(
    st.dictionaries(st.text(max_size=8), KEPT, max_size=4).map(PruningPlan), max_size=3
)


@given(PLANS)
def test_plans_come_back_as_they_were(plans):
    assert read_plans(write_plans(plans)) == tuple(plans)


def test_a_list_of_plans_in_full_is_read_too():
    plan = PruningPlan({"a": Kept((0, 2), (1,))})
    assert read_plans(f"[{json.dumps(plan.to_json())}]") == (plan,)


def test_a_layer_takes_few_bytes_for_its_channels():
    rng = random.Random(0)
    masks = [tuple(sorted(rng.sample(range(512), 256))) for _ in range(21)]
    plan = PruningPlan({f"layer{i}": Kept(masks[i], masks[i - 1]) for i in range(1, 21)})
    assert len(write_plans([plan])) < 20 * 120
    assert len(plan.to_json()) > 20 * 2000


@pytest.mark.parametrize(
    "text",
    [
        "", "3", "{}", '{"channels":[],"plans":[{"a":[0,0,1,0]}]}',
        '{"channels":["0-1"],"plans":[{"a":[0,0]}]}',
        '{"channels":["0-1"],"plans":[{"a":[-1,0,1,0]}]}',
        '{"channels":["0-9999999"],"plans":[]}', '{"channels":["5-x"],"plans":[]}',
        '{"channels":[":***"],"plans":[]}', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(DataError):
        read_plans(text)
