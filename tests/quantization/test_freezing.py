"""QAFT: grids and batch-norm statistics stop, weights go on learning."""

import copy

import pytest
import torch
from torch import nn

from micronet.errors import QuantizationError


@pytest.fixture
def frozen(small_net, images, iao):
    quantizer = iao()
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images])
    quantizer.freeze(prepared)
    return prepared.train()


def buffers(model):
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


def train(model, images):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    nn.functional.cross_entropy(model(images), torch.arange(len(images))).backward()
    optimizer.step()


def test_training_moves_weights_and_no_grid_or_statistic(frozen, images):
    before, weights = buffers(frozen), frozen.stem.weight.detach().clone()
    train(frozen, 10 * images)
    after = buffers(frozen)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert not torch.equal(frozen.stem.weight, weights)
    assert frozen.stem_bn.weight.grad.abs().max() > 0


def test_switching_modes_thaws_nothing(frozen, images):
    before = buffers(frozen)
    frozen.eval()
    frozen.train()
    train(frozen, 10 * images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(frozen).items())
    assert frozen.training


def test_calibration_thaws_nothing(frozen, images, iao):
    before = buffers(frozen)
    iao().calibrate(frozen, [10 * images])
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(frozen).items())


def test_a_copy_is_frozen_too(frozen, images):
    copied = copy.deepcopy(frozen)
    train(copied, 10 * images)
    original, changed = buffers(frozen), buffers(copied)
    assert all(torch.equal(original[name], changed[name]) for name in original)


def test_freezing_changes_no_output(small_net, images, calibrated, iao):
    prepared = calibrated(small_net, images)
    expected = prepared(images)
    iao().freeze(prepared)
    assert torch.equal(prepared(images), expected)


def test_a_model_that_saw_no_data_is_refused_with_the_layers_name(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,))
    with pytest.raises(QuantizationError, match=r"'activation_quantizers\.x' has seen no data"):
        iao().freeze(prepared)
    assert not prepared.stem.weight_quantizer.frozen


def test_a_frozen_model_converts_to_what_it_computes(frozen, images, iao):
    train(frozen, images)
    frozen.eval()
    assert torch.equal(iao().convert(frozen)(images), frozen(images))
