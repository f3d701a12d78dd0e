"""Real techniques, by their registered names, and nets that several modules use."""

import pytest
import torch
from torch import nn

from micronet import registry


@pytest.fixture(scope="session")
def create():
    """`micronet.registry.create`."""
    return registry.create


@pytest.fixture(scope="session")
def with_statistics():
    """Gives a model's batch norms statistics and distinct gammas of both signs, in place."""

    def give(model, seed=0):
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.weight, 0.2, 1.5, generator=generator)
                nn.init.uniform_(module.bias, -0.3, 0.3, generator=generator)
                nn.init.uniform_(module.running_mean, -0.3, 0.3, generator=generator)
                nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
                with torch.no_grad():
                    module.weight[::3].neg_()
        return model

    return give
