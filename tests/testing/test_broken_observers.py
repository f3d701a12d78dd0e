"""Each contract of observers, broken by one that is made to break it."""

import attrs
import pytest
import torch
from broken import broken

from micronet import registry
from micronet.techniques import Observer
from micronet.testing import (
    OBSERVER,
    ContractError,
    ObserverCase,
    check_observer,
)

MinMax = registry.get("observer", "minmax")


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
