"""What a model costs."""

import copy

import pytest
import torch
from torch import nn

from micronet.measure import activation_bits, gflops, params_m, weight_bits
from micronet.registry import create

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def prepare(small_net):
    """Prepares and calibrates SmallNet."""

    def run(**options):
        quantizer = create("quantizer", "iao", **options)
        prepared = quantizer.prepare(small_net, (X,))
        quantizer.calibrate(prepared, [X])
        return prepared

    return run


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 16 * 16 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, padding=1, stride=2, bias=False), 8 * 8 * 8 * 3 * 9),
        (nn.Conv2d(3, 6, 5, groups=3), 12 * 12 * 6 * 1 * 25),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)), 3 * 16 * 16 * 10),
    ],
    ids=["convolution", "strided", "grouped", "linear"],
)
def test_gflops_count_the_multiplications_of_one_image(layer, by_hand):
    assert gflops(layer, (X,)) == pytest.approx(by_hand / 1e9)


def test_nin_costs_what_the_sum_over_its_layers_says():
    cfg = (3, 192, 160, 96, 192, 192, 192, 192, 192, 10)
    kernels, sizes = (5, 1, 1, 5, 1, 1, 3, 1, 1), (32, 32, 32, 16, 16, 16, 8, 8, 8)
    by_hand = sum(
        cfg[i] * cfg[i + 1] * kernels[i] ** 2 * sizes[i] ** 2 for i in range(len(kernels))
    )
    model = create("model", "nin").build()
    assert gflops(model, (torch.randn(2, 3, 32, 32),)) == pytest.approx(by_hand / 1e9)


def test_quantization_changes_no_count_of_operations(small_net, prepare):
    prepared = prepare()
    expected = gflops(small_net, (X,))
    assert gflops(prepared, (X,)) == expected
    assert gflops(create("quantizer", "iao").convert(prepared), (X,)) == expected


def test_counting_operations_changes_neither_mode_nor_statistics(small_net):
    small_net.train()
    small_net.body_bn.eval()
    before = copy.deepcopy(small_net.state_dict())
    gflops(small_net, (X,))
    assert all(torch.equal(tensor, before[key]) for key, tensor in small_net.state_dict().items())
    assert small_net.stem_bn.training
    assert not small_net.body_bn.training


def test_parameters_are_counted_in_millions(small_net):
    # stem, its batch norm, body, its batch norm, head
    assert params_m(small_net) == pytest.approx((224 + 16 + 576 + 16 + 90) / 1e6)


def test_a_float_model_has_32_bits(small_net):
    assert (weight_bits(small_net), activation_bits(small_net)) == (32, 32)


@pytest.mark.parametrize(("w_bits", "a_bits"), [(8, 8), (4, 8), (2, 16)])
def test_a_prepared_model_has_the_bits_of_its_codes(prepare, w_bits, a_bits):
    prepared = prepare(w_bits=w_bits, a_bits=a_bits)
    assert (weight_bits(prepared), activation_bits(prepared)) == (w_bits, a_bits)


def test_a_converted_model_has_the_bits_of_its_codes_too(prepare):
    converted = create("quantizer", "iao").convert(prepare(w_bits=4, a_bits=6))
    assert (weight_bits(converted), activation_bits(converted)) == (4, 6)


def test_the_products_inside_attention_count():
    encoder = nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, batch_first=True)
    tokens, width = 10, 16
    projections, attention = 4 * tokens * width * width, 2 * tokens * tokens * width
    feed_forward = 2 * tokens * width * 32
    assert gflops(encoder, (torch.randn(1, tokens, width),)) * 1e9 == pytest.approx(
        projections + attention + feed_forward
    )
