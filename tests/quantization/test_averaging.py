"""Copies of a prepared model whose tensors others fill: averages of weights, above all."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from micronet.registry import create

OPTIONS = {
    "iao": {},
    "iao, one scale": {"per_channel": False, "fold_bn": "running"},
    "iao, other observers": {"w_observer": "mse", "a_observer": "percentile"},
    "iao, entropy": {"a_observer": "entropy"},
    "dorefa": {},
    "wbwtab": {"first_and_last": "int8"},
}


@pytest.fixture(params=OPTIONS)
def quantizer(request):
    return create("quantizer", request.param.partition(",")[0], **OPTIONS[request.param])


def train(model, images, steps=2):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(steps):
        nn.functional.cross_entropy(model(images), torch.arange(len(images))).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def follow(average, model):
    for ours, theirs in (
        *zip(average.parameters(), model.parameters(), strict=True),
        *zip(average.buffers(), model.buffers(), strict=True),
    ):
        ours.copy_(theirs)


@pytest.mark.parametrize("when", ["before the first batch", "after it"])
def test_a_copy_that_gets_every_tensor_computes_the_same(small_net, images, quantizer, when):
    prepared = quantizer.prepare(small_net, (images,))
    if when == "after it":
        train(prepared, images)
    average = copy.deepcopy(prepared)
    train(prepared, images)
    follow(average, prepared)
    assert torch.equal(average.eval()(images), prepared.eval()(images))
    converted, theirs = quantizer.convert(average), quantizer.convert(prepared)
    assert torch.equal(converted(images), theirs(images))
    quantizer.freeze(average)


@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.0)], ids=["mean", "newest"])
def test_torchs_averaged_model_is_ready(small_net, images, quantizer, use_buffers, average):
    prepared = quantizer.prepare(small_net, (images,))
    averaged = AveragedModel(prepared, multi_avg_fn=average, use_buffers=use_buffers)
    for _ in range(3):
        train(prepared, images, steps=1)
        averaged.update_parameters(prepared)
    outputs = averaged.eval()(images)
    expected = prepared.eval()(images)
    assert (outputs - expected).abs().max() < 0.2 * expected.abs().max()
    if average is not None:
        assert torch.allclose(outputs, expected, atol=1e-6)
    assert quantizer.convert(averaged)(images).isfinite().all()


def test_a_copy_without_data_is_not_ready(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,))
    average = copy.deepcopy(prepared)
    follow(average, prepared)
    with pytest.raises(Exception, match="seen no data"):
        average.eval()(images)
