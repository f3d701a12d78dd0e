"""Observers against the plain formulas, batch by batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from micronet.errors import OptionError

BATCHES = st.lists(
    st_numpy.arrays(
        "float32",
        st.tuples(st.integers(1, 3), st.just(4), st.just(2)),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    min_size=1,
    max_size=5,
)
AXES = [None, 1, 2, -1]


def extremes(batch, axis):
    if axis is None:
        return batch.min(), batch.max()
    others = tuple(dim for dim in range(batch.ndim) if dim != axis % batch.ndim)
    return batch.min(others), batch.max(others)


@pytest.mark.parametrize("axis", AXES)
@given(batches=BATCHES)
@settings(max_examples=30, deadline=None)
def test_minmax_keeps_the_extremes_of_all_batches(create, axis, batches):
    observer = create("observer", "minmax").build(axis)
    for batch in batches:
        observer(torch.from_numpy(batch))
    low, high = observer.range()
    wanted = extremes(np.concatenate(batches), axis)
    assert np.array_equal(low.numpy(), wanted[0])
    assert np.array_equal(high.numpy(), wanted[1])


@pytest.mark.parametrize("axis", AXES)
@given(batches=BATCHES, momentum=st.sampled_from([0.01, 0.1, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_a_moving_average_starts_at_the_first_batch_and_follows(create, axis, batches, momentum):
    observer = create("observer", "moving_average", momentum=momentum).build(axis)
    wanted = None
    for batch in batches:
        observer(torch.from_numpy(batch))
        now = np.array(extremes(batch.astype(np.float64), axis))
        wanted = now if wanted is None else wanted + momentum * (now - wanted)
    found = np.array([end.numpy() for end in observer.range()])
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5 * max(np.abs(b).max() for b in batches))


def test_momentum_is_a_tenth_by_default(create):
    observer = create("observer", "moving_average").build()
    observer(torch.tensor([0.0, 1.0]))
    observer(torch.tensor([-1.0, 2.0]))
    assert [float(end) for end in observer.range()] == pytest.approx([-0.1, 1.1])


@pytest.mark.parametrize("momentum", [0, -0.1, 1.5, "fast", float("nan")])
def test_a_momentum_that_is_no_fraction_is_refused(create, momentum):
    with pytest.raises(OptionError, match="momentum must be"):
        create("observer", "moving_average", momentum=momentum)


@pytest.mark.parametrize("name", ["minmax", "moving_average"])
@pytest.mark.parametrize("axis", [None, 1])
def test_an_empty_batch_leaves_no_trace(create, name, axis):
    watched, other = (create("observer", name).build(axis) for _ in range(2))
    batches = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    watched(torch.empty(0, 4))
    for batch in batches:
        watched(batch)
        watched(torch.empty(0, 4))
        other(batch)
    for found, wanted in zip(watched.range(), other.range(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", ["minmax", "moving_average"])
def test_a_range_is_no_part_of_the_gradient(create, name):
    observer = create("observer", name).build()
    observer(torch.ones(3, requires_grad=True) * 2)
    assert not any(end.requires_grad for end in observer.range())


def test_restarting_forgets_extremes(create):
    observer = create("observer", "minmax").build()
    observer(torch.tensor([-9.0, 9.0]))
    observer.restart()
    observer(torch.tensor([1.0, 2.0]))
    assert [float(end) for end in observer.range()] == [1, 2]


@pytest.mark.parametrize("name", ["percentile", "mse", "entropy"])
def test_a_big_batch_has_the_range_of_its_parts(create, name):
    images = torch.randn(32, 16, 64, 64, generator=torch.Generator().manual_seed(0)).relu()
    whole, parts = (create("observer", name).build() for _ in range(2))
    whole(images)
    for part in images.split(1):  # each small enough to be counted as a whole
        parts(part)
    assert float(whole.range()[1]) == pytest.approx(float(parts.range()[1]), rel=0.1)
    assert whole.range()[0] == parts.range()[0] == 0
