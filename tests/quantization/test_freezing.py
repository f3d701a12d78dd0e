"""QAFT: grids and batch-norm statistics stop, weights go on learning."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn

from micronet.errors import QuantizationError
from micronet.quantization import hold


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


class OwnNorm(nn.BatchNorm2d):
    """A subclass with a forward of its own."""

    def forward(self, x):
        return super().forward(x) + 0.0


class OwnTrain(nn.Module):
    """A model that keeps its first norm in eval mode, and says so in `train`."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3), norm, nn.Conv2d(8, 10, 3)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        if x.mean() > 1e9:  # so that it can't be traced and stays itself
            return x
        return self.last(x).mean((2, 3))

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            module.train(mode) if module is not self else None
        return self


NORMS = {
    "batch norm": lambda: nn.BatchNorm2d(8),
    "synchronized": lambda: nn.SyncBatchNorm(8),
    "subclass": lambda: OwnNorm(8),
    "lazy": nn.LazyBatchNorm2d,
    "instance norm": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
}


def with_norm(make, images, iao, *, traced):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), make(), nn.ReLU(), nn.Conv2d(8, 10, 3)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    model = model if traced else OwnTrain(make())
    model(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the model that can't be traced
        prepared = iao().prepare(model, (images,))
    iao().calibrate(prepared, [images])
    return prepared


@pytest.fixture(params=["traced", "untraced"])
def normed(request, images, iao):
    return lambda make: with_norm(make, images, iao, traced=request.param == "traced")


@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
def test_norms_of_every_type_keep_their_statistics(normed, images, iao, make):
    prepared = normed(make)
    keys, types = list(prepared.state_dict()), [type(m) for m in prepared.modules()]
    iao().freeze(prepared)
    before = buffers(prepared)
    train(prepared.train(), 3 * images)
    assert [
        n for n, tensor in buffers(prepared).items() if not torch.equal(tensor, before[n])
    ] == []
    assert list(prepared.state_dict()) == keys
    assert [type(m) for m in prepared.modules()] == types


@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
def test_copies_and_pickles_of_a_frozen_model_are_frozen(normed, images, iao, make):
    prepared = normed(make)
    iao().freeze(prepared)
    file = io.BytesIO()
    torch.save(prepared, file)
    file.seek(0)
    before = buffers(prepared)
    for copied in (copy.deepcopy(prepared), torch.load(file, weights_only=False)):
        train(copied.train(), 3 * images)
        found = buffers(copied)
        assert [name for name in before if not torch.equal(found[name], before[name])] == []
        norms = [m for m in copied.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        assert norms
        assert not any(norm.training for norm in norms)
        assert all(norm.train() is norm for norm in norms)


def test_a_lazy_norm_that_was_frozen_before_its_first_batch_stays_so(images):
    norm = nn.LazyBatchNorm2d()
    hold(norm)
    norm.train()(images)
    assert type(norm) is nn.BatchNorm2d
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert torch.equal(norm.running_var, torch.ones(3))
