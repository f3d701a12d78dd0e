"""What the tests of broken techniques share."""

import pytest
from torch import nn

from micronet.testing import ContractError


def broken(contracts, case, name):
    """What the contract of that name says of a technique that must break it."""
    (contract,) = [each for each in contracts if each.name == name]
    assert contract.applies(case)
    with pytest.raises(ContractError) as caught:
        contract.verify(case)
    said = str(caught.value)
    assert name in said
    assert type(case.technique).__name__ in said
    assert contract.remedy in said
    return said


class LooksAtValues(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) if float(x.sum()) < 1e9 else x
