"""A prepared model compiles, and trains as it does uncompiled."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from micronet.registry import create

OPTIONS = {
    "per channel": {},
    "per layer, BN folded": {"per_channel": False, "fold_bn": "running"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_compiled_step_equals_a_plain_one(small_net, images, options):
    small_net.relu = torch.nn.ReLU6()
    prepared = create("quantizer", "iao", **options).prepare(small_net.eval(), (images,))
    for module in prepared.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # else each of the two would drop others
    labels = torch.arange(len(images)) % 10
    twin = copy.deepcopy(prepared)
    compiled = torch.compile(prepared, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        losses = [cross_entropy(model.train()(images), labels) for model in (compiled, twin)]
        for loss in losses:
            loss.backward()
        assert torch.allclose(*losses, rtol=1e-4)
    for (name, ours), theirs in zip(prepared.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5), name
    state, other = prepared.state_dict(), twin.state_dict()
    assert all(torch.allclose(state[key], other[key], rtol=1e-4) for key in state)
