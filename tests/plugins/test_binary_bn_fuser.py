"""The fuser `binary_bn`: batch norms before signs become biases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from micronet import registry
from micronet.errors import QuantizationError
from micronet.quantization import quantized_layers

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def fuse(model, x=X):
    return registry.create("fuser", "binary_bn").fuse(model, (x,))


def batch_norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def sign():
    return registry.create("quantizer", "wbwtab").activation_quantizer()


class BeforeSign(nn.Module):
    """Layer, batch norm and sign, with the batch norm's outputs at hand."""

    def __init__(self, layer, bn):
        super().__init__()
        self.layer, self.bn, self.sign = layer, bn, sign()

    def forward(self, x):
        return self.sign(self.bn(self.layer(x)))


numbers = st.floats(-3, 3, width=32, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(
    gammas=st.lists(st.just(0.0) | numbers, min_size=4, max_size=4),
    betas=st.lists(st.just(0.0) | numbers, min_size=4, max_size=4),
    means=st.lists(numbers, min_size=4, max_size=4),
    variances=st.lists(st.floats(0, 4, width=32), min_size=4, max_size=4),
    layer=st.sampled_from([nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 1, bias=False)]),
)
def test_the_signs_stay_the_same(gammas, betas, means, variances, layer):
    bn = nn.BatchNorm2d(4)
    with torch.no_grad():
        for tensor, values in (
            (bn.weight, gammas),
            (bn.bias, betas),
            (bn.running_mean, means),
            (bn.running_var, variances),
        ):
            tensor.copy_(torch.tensor(values))
    model = BeforeSign(layer, bn).eval()
    x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        normalized = bn(layer(x))
        fused = fuse(model, x)
        assert batch_norms(fused) == []
        # Next to the threshold, which rounding moves, either sign is right; near the smallest
        # floats rounding is as large as they are.
        scale = (layer(x).abs() + bn.running_mean.abs().reshape(-1, 1, 1)) * (
            bn.weight / torch.sqrt(bn.running_var + bn.eps)
        ).abs().reshape(-1, 1, 1)
        near = 1e-5 * (scale + bn.bias.abs().reshape(-1, 1, 1)) + 1e-36
        clear = normalized.abs() > near
        constant = (bn.weight == 0).reshape(-1, 1, 1)
        assert torch.equal(fused(x)[clear | constant], model(x)[clear | constant])


def test_a_batch_norm_without_gamma_and_beta_is_folded_too():
    bn = nn.BatchNorm2d(4, affine=False)
    nn.init.uniform_(bn.running_mean, -1, 1)
    model = BeforeSign(nn.Conv2d(3, 4, 3), bn).eval()
    fused = fuse(model)
    assert batch_norms(fused) == []
    assert torch.equal(fused(X), model(X))


@pytest.mark.parametrize("weights", ["binary", "ternary", "float"])
def test_a_prepared_network_keeps_its_outputs_and_scales(create, with_statistics, weights):
    torch.manual_seed(0)
    quantizer = create("quantizer", "wbwtab", weights=weights)
    model = create("model", "nin", cfg=(8,) * 8).build()
    prepared = with_statistics(quantizer.prepare(model, (X,))).eval()
    fused = fuse(prepared)
    assert len(batch_norms(fused)) == 1  # the last feeds a ReLU
    with torch.no_grad():
        assert torch.allclose(fused(X), prepared(X), atol=1e-4)
    layers = dict(quantized_layers(fused))
    if weights == "float":
        return
    for name, layer in quantized_layers(prepared):
        before = layer.weight_quantizer.quantize(layer.weight)
        after = layers[name].weight_quantizer.quantize(layers[name].weight)
        assert torch.allclose(after.scale, before.scale)
        assert torch.equal(after.codes.abs(), before.codes.abs())


def test_what_something_else_reads_too_stays():
    class Both(BeforeSign):
        def forward(self, x):
            normalized = self.bn(self.layer(x))
            return self.sign(normalized) + normalized

    assert len(batch_norms(fuse(Both(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))) == 1


def test_a_batch_norm_before_a_relu_stays(small_net, images):
    assert len(batch_norms(fuse(small_net, images))) == 2


def test_a_converted_model_is_refused(create):
    quantizer = create("quantizer", "wbwtab", activations="float")
    prepared = quantizer.prepare(create("model", "nin", cfg=(8,) * 8).build(), (X,))
    with pytest.raises(QuantizationError, match="before it is converted"):
        fuse(quantizer.convert(prepared))
