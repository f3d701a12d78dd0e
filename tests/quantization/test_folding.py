"""A folded batch norm changes nothing but the number of layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from micronet.quantization import AffineFakeQuantizer, Grid, quantize_layer
from micronet.quantization.folding import fold_batch_norm
from micronet.registry import create

CHANNELS = 6
GAMMAS = st.one_of(st.just(0.0), st.floats(0.03125, 8, width=32), st.floats(-8, -0.03125, width=32))
STATISTICS = st.fixed_dictionaries(
    {
        "weight": st.lists(GAMMAS, min_size=CHANNELS, max_size=CHANNELS),
        "bias": st.lists(st.floats(-3, 3), min_size=CHANNELS, max_size=CHANNELS),
        "running_mean": st.lists(st.floats(-3, 3), min_size=CHANNELS, max_size=CHANNELS),
        "running_var": st.lists(st.floats(0.001, 9), min_size=CHANNELS, max_size=CHANNELS),
    }
)
LAYERS = {
    "conv2d": (lambda bias: nn.Conv2d(4, CHANNELS, 3, bias=bias), nn.BatchNorm2d, (2, 4, 5, 5)),
    "grouped": (
        lambda bias: nn.Conv2d(4, CHANNELS, 1, groups=2, bias=bias),
        nn.BatchNorm2d,
        (2, 4, 5, 5),
    ),
    "depthwise": (
        lambda bias: nn.Conv2d(6, CHANNELS, 3, groups=6, bias=bias),
        nn.BatchNorm2d,
        (2, 6, 5, 5),
    ),
    "conv1d": (lambda bias: nn.Conv1d(4, CHANNELS, 3, bias=bias), nn.BatchNorm1d, (2, 4, 7)),
    "conv3d": (lambda bias: nn.Conv3d(2, CHANNELS, 2, bias=bias), nn.BatchNorm3d, (2, 2, 3, 3, 3)),
    "linear": (lambda bias: nn.Linear(4, CHANNELS, bias=bias), nn.BatchNorm1d, (5, 4)),
    "transposed": (
        lambda bias: nn.ConvTranspose2d(4, CHANNELS, 3, stride=2, bias=bias),
        nn.BatchNorm2d,
        (2, 4, 4, 4),
    ),
}


def pair(kind, statistics, *, bias, dtype=torch.float32):
    make, norm, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer, bn = make(bias).to(dtype), norm(CHANNELS).to(dtype).eval()
    with torch.no_grad():
        for name, values in statistics.items():
            getattr(bn, name).copy_(torch.tensor(values))
    return layer, bn, torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("kind", LAYERS)
@given(statistics=STATISTICS, bias=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_folded_layer_computes_what_the_pair_did(kind, statistics, bias):
    layer, bn, x = pair(kind, statistics, bias=bias, dtype=torch.float64)
    expected = bn(layer(x))
    fold_batch_norm(layer, bn)
    assert torch.allclose(layer(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != "transposed"])
@given(
    statistics=STATISTICS,
    bias=st.booleans(),
    bits=st.sampled_from([2, 4, 8, 16]),
    per_channel=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_a_folded_quantized_layer_keeps_its_codes_and_outputs(
    kind, symmetric, statistics, bias, bits, per_channel
):
    layer, bn, x = pair(kind, statistics, bias=bias)
    axis = 0 if per_channel else None
    observer = create("observer", "minmax").build(axis)
    quantizer = AffineFakeQuantizer(
        Grid(bits, symmetric, narrow=True), observer, axis=axis, whole=True
    )
    quantizer.observe(layer.weight.detach())
    quantize_layer(layer.eval(), quantizer)
    expected, before = bn(layer(x)), quantizer.quantize(layer.weight)
    fold_batch_norm(layer, bn)

    after = quantizer.quantize(layer.weight)
    assert quantizer.scale.shape == (CHANNELS,)
    per_output = (-1, *[1] * (layer.weight.dim() - 1))
    sign = bn.weight.sign().to(torch.int32).reshape(per_output)
    moved = before.codes.to(torch.int32) - before.zero_point.reshape(
        per_output if per_channel else ()
    )
    assert torch.equal(
        after.codes.to(torch.int32) - after.zero_point.reshape(per_output), moved * sign
    )
    bound = 1e-4 * (1 + expected.detach().abs().max())
    assert torch.allclose(layer(x), expected, rtol=1e-4, atol=float(bound))


def test_a_batch_norm_without_affine_parameters_folds():
    torch.manual_seed(0)
    layer, bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False).eval()
    nn.init.uniform_(bn.running_mean)
    nn.init.uniform_(bn.running_var, 0.5, 2)
    x = torch.randn(2, 3, 5, 5)
    expected = bn(layer(x))
    fold_batch_norm(layer, bn)
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_folding_leaves_the_batch_norm_as_it_was():
    layer, bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    before = {key: tensor.clone() for key, tensor in bn.state_dict().items()}
    fold_batch_norm(layer, bn)
    assert all(torch.equal(tensor, before[key]) for key, tensor in bn.state_dict().items())


def test_a_folded_layer_has_a_trainable_bias_in_its_state():
    layer = nn.Conv2d(3, 4, 3, bias=False)
    fold_batch_norm(layer, nn.BatchNorm2d(4).eval())
    assert layer.bias.requires_grad
    assert "bias" in layer.state_dict()
