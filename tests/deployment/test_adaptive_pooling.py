"""Adaptive pooling in the form that exports."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from micronet.deployment.adaptive_pooling import any_size
from micronet.errors import DeployError

X = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(4, 5), (5, 3), 7, 1, (None, 3), (12, 10), (20, 1)], ids=str)
def test_it_computes_what_torch_computes(size):
    expected = functional.adaptive_avg_pool2d(X, size)
    with any_size():
        assert torch.allclose(
            functional.adaptive_avg_pool2d(X, output_size=size), expected, atol=1e-6
        )
        assert torch.allclose(nn.AdaptiveAvgPool2d(size)(X), expected, atol=1e-6)


def test_global_max_pooling_is_left_and_other_max_pooling_refused():
    with any_size():
        assert torch.equal(nn.AdaptiveMaxPool2d(1)(X), X.amax((2, 3), keepdim=True))
        with pytest.raises(DeployError, match=r"to \(2, 2\) can't be exported"):
            functional.adaptive_max_pool2d(X, 2)
