"""The fuser `bn` on whole models."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from micronet.errors import MicronetError
from micronet.quantization import quantized_layers

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def batch_norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.fixture
def fuse(create):
    return lambda model, x=X: create("fuser", "bn").fuse(model, (x,))


@pytest.mark.parametrize("name", ["nin", "nin_gc", "resnet18", "mobilenet_v2"])
def test_a_fused_model_computes_the_same_without_batch_norms(create, with_statistics, fuse, name):
    torch.manual_seed(0)
    model = with_statistics(
        create("model", name).build()
        if name.startswith("nin")
        else getattr(torchvision.models, name)(num_classes=10)
    ).eval()
    with torch.no_grad():
        expected, fused = model(X), fuse(model)
        assert torch.allclose(fused(X), expected, rtol=1e-3, atol=1e-4 * expected.abs().max())
    assert batch_norms(fused) == []


def test_the_model_itself_stays_as_it_was(small_net, images, fuse):
    before = copy.deepcopy(small_net.state_dict())
    fused = fuse(small_net, images)
    assert len(batch_norms(small_net)) == 2
    assert all(torch.equal(tensor, before[key]) for key, tensor in small_net.state_dict().items())
    assert fused.training


@pytest.mark.parametrize("options", [{}, {"per_channel": False}, {"w_symmetric": False}], ids=str)
def test_a_fused_prepared_model_has_the_same_codes_and_outputs(
    small_net, images, create, fuse, options
):
    quantizer = create("quantizer", "iao", **options)
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images])
    prepared.eval()
    fused = fuse(prepared, images)
    assert batch_norms(fused) == []
    layers = dict(quantized_layers(fused))
    for name, layer in quantized_layers(prepared):
        before = layer.weight_quantizer.quantize(layer.weight)
        after = layers[name].weight_quantizer.quantize(layers[name].weight)
        shape = (-1, *[1] * (layer.weight.dim() - 1))

        def from_zero(tensor, shape=shape):
            zero = tensor.zero_point.reshape(shape if tensor.zero_point.dim() else ())
            return tensor.codes.to(torch.int32) - zero

        assert torch.equal(from_zero(after).abs(), from_zero(before).abs())
    step = float(prepared.activation_quantizers.pool.scale)
    with torch.no_grad():
        assert (fused(images) - prepared(images)).abs().max() < step


def test_a_fused_prepared_model_converts_trains_and_is_saved(small_net, images, create, fuse):
    quantizer = create("quantizer", "iao", per_channel=False)
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images])
    fused = fuse(prepared, images)
    fused.train()(images).square().sum().backward()
    assert fused.stem.weight.grad.isfinite().all()
    fused.eval()
    assert torch.equal(quantizer.convert(fused)(images), fused(images))
    fresh = fuse(quantizer.prepare(type(small_net)(), (images,)), images).eval()
    fresh.load_state_dict(fused.state_dict())
    assert torch.equal(fresh(images), fused(images))


def test_a_frozen_model_fuses_too(small_net, images, create, fuse):
    quantizer = create("quantizer", "iao")
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images])
    quantizer.freeze(prepared)
    assert batch_norms(fuse(prepared, images)) == []


def test_which_layers_fuse_does_not_depend_on_weights(small_net, images, fuse):
    nn.init.zeros_(small_net.body_bn.weight)
    assert fuse(small_net, images).state_dict().keys() == (
        fuse(type(small_net)(), images).state_dict().keys()
    )


class LinearOnSequences(nn.Module):
    """A batch norm over dimension 1, where the linear layer's features are the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.bn = nn.BatchNorm1d(8)

    def forward(self, x):
        return self.bn(self.linear(x))


def test_a_batch_norm_over_another_dimension_than_the_layers_outputs_is_left(with_statistics, fuse):
    torch.manual_seed(0)
    model = with_statistics(LinearOnSequences()).eval()
    x = torch.randn(3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(fuse(model, x)(x), model(x), atol=1e-5)


class TiedWeights(nn.Module):
    """Two convolutions with one weight and a batch norm each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight
        self.first_bn, self.second_bn = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second_bn(self.second(self.first_bn(self.first(x))))


def test_layers_with_one_weight_keep_computing_the_same(with_statistics, fuse):
    torch.manual_seed(0)
    model = with_statistics(TiedWeights()).eval()
    with torch.no_grad():
        assert torch.allclose(fuse(model)(X), model(X), atol=1e-5)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(self.conv(x)) if x.sum() > 0 else x


def test_a_model_that_cannot_be_traced_is_refused_in_words(fuse):
    with pytest.raises(MicronetError, match="Branching can't be followed"):
        fuse(Branching())


def test_a_converted_model_is_refused_in_words(small_net, images, create, fuse):
    quantizer = create("quantizer", "iao")
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images])
    with pytest.raises(MicronetError):
        fuse(quantizer.convert(prepared), images)
