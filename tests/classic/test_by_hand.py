"""Operations replaced by their quantized twins by hand, as the documentation shows."""

import pytest
import torch
from torch import nn

from micronet.base_module.op import *  # noqa: F403 (as documented)
from micronet.compression.quantization.wbwtab import quantize as wbwtab
from micronet.compression.quantization.wqaq.dorefa import quantize as dorefa
from micronet.compression.quantization.wqaq.iao import quantize as iao
from micronet.errors import OptionError, QuantizationError
from micronet.quantization import FakeQuantizer, fake_quantizers, quantized_layers


def wbwtab_lenet(lenet):
    lenet.conv2 = wbwtab.QuantConv2d(10, 20, kernel_size=5, W=3)
    lenet.relu = wbwtab.ActivationQuantizer()
    return lenet


def dorefa_lenet(lenet):
    lenet.conv2 = dorefa.QuantConv2d(10, 20, kernel_size=5, a_bits=4, w_bits=4)
    lenet.fc1 = dorefa.QuantLinear(320, 50)
    lenet.fc2 = dorefa.QuantLinear(50, 10)
    return lenet


def iao_lenet(lenet):
    lenet.conv1 = iao.QuantConv2d(1, 10, kernel_size=5)
    lenet.conv2 = iao.QuantConv2d(10, 20, kernel_size=5, q_type=1, q_level=1, weight_observer=1)
    lenet.fc1 = iao.QuantLinear(320, 50, ptq=True, percentile=0.999)
    lenet.fc2 = iao.QuantLinear(50, 10)
    lenet.max_pool = iao.QuantMaxPool2d(kernel_size=2)
    lenet.relu = iao.QuantReLU(inplace=True)
    return lenet


@pytest.mark.parametrize("quantized", [wbwtab_lenet, dorefa_lenet, iao_lenet])
def test_a_network_trains_and_its_float_weights_load(lenet, grey, quantized):
    floats = dict(lenet.state_dict())
    model = quantized(lenet)
    result = model.load_state_dict(floats, strict=False)
    assert result.unexpected_keys == []
    model.train()(grey).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.eval()(grey).shape == (4, 10)


@pytest.mark.parametrize(
    ("module", "options", "bits"),
    [
        (wbwtab, {"W": 2}, 1),
        (wbwtab, {"W": 3}, 1.5),
        (dorefa, {"w_bits": 4}, 4),
        (iao, {"w_bits": 8, "q_level": 1}, 8),
    ],
)
@pytest.mark.parametrize("kind", ["QuantConv2d", "QuantConvTranspose2d"])
def test_a_layer_computes_with_weights_on_the_techniques_grid(module, options, bits, kind):
    layer = getattr(module, kind)(4, 6, 3, padding=1, groups=2, **options)
    out = layer(torch.rand(2, 4, 8, 8))
    assert out.shape == (2, 6, 8, 8)
    assert layer.weight_quantizer.bits == bits
    stored = layer.weight_quantizer.quantize(layer.weight).dequantize()
    assert torch.allclose(layer.quantized_weight(), stored, atol=1e-6)


def test_float_bits_leave_values_alone():
    x = torch.randn(2, 3, 8, 8)
    layer = wbwtab.QuantConv2d(3, 4, 3, W=32)
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))
    layer = dorefa.QuantConv2d(3, 4, 3, w_bits=32, a_bits=32)
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))
    assert torch.equal(wbwtab.ActivationQuantizer(A=32)(x), x.relu())


def test_a_binary_activation_is_the_sign():
    x = torch.tensor([-2.0, -0.5, 0.0, 3.0])
    assert wbwtab.ActivationQuantizer()(x).tolist() == [-1, -1, 1, 1]


@pytest.mark.parametrize("q_type", [0, 1])
@pytest.mark.parametrize(
    ("quantized", "plain"),
    [
        (iao.QuantReLU, nn.ReLU()),
        (iao.QuantSigmoid, nn.Sigmoid()),
        (lambda **options: iao.QuantLeakyReLU(0.2, **options), nn.LeakyReLU(0.2)),
        (lambda **options: iao.QuantMaxPool2d(2, **options), nn.MaxPool2d(2)),
        (lambda **options: iao.QuantAvgPool2d(2, **options), nn.AvgPool2d(2)),
        (lambda **options: iao.QuantAdaptiveAvgPool2d(1, **options), nn.AdaptiveAvgPool2d(1)),
    ],
)
def test_an_operation_quantizes_its_input(quantized, plain, q_type):
    x = torch.randn(2, 3, 8, 8)
    module = quantized(a_bits=4, q_type=q_type)
    out = module(x)
    (quantizer,) = module.input_quantizers
    assert quantizer.grid.symmetric is (q_type == 0)
    assert torch.equal(out, plain(quantizer.eval()(x)))


@pytest.mark.parametrize("kind", [iao.QuantAdd, iao.QuantConcat])
def test_operations_on_two_tensors_give_each_its_own_grid(kind):
    small, large = torch.rand(2, 3, 4, 4), 100 * torch.rand(2, 3, 4, 4)
    module = kind()
    plain = Add() if kind is iao.QuantAdd else Concat()  # noqa: F405
    error = (module(small, large) - plain(small, large)).abs().max()
    first, second = module.input_quantizers
    assert error <= first.scale + second.scale
    assert second.scale > 50 * first.scale
    with pytest.raises(QuantizationError, match="say inputs=3"):
        module(small, small, small)
    assert kind(inputs=3)(small, small, small).shape == plain(small, small, small).shape


@pytest.mark.parametrize("calib", [False, True])
@pytest.mark.parametrize("q_level", [0, 1])
def test_a_convolution_with_its_batch_norm_trains(calib, q_level):
    torch.manual_seed(0)
    module = iao.QuantBNFuseConv2d(3, 8, 3, padding=1, q_level=q_level, bn_fuse_calib=calib)
    x = torch.randn(4, 3, 8, 8)
    out = module(x)
    plain = nn.functional.batch_norm(
        nn.functional.conv2d(x, module.conv.weight, padding=1), None, None, training=True
    )
    assert (out - plain).abs().max() < 0.1
    out.square().sum().backward()
    assert module.conv.weight.grad.isfinite().all()
    assert [name for name, _ in quantized_layers(module)] == ["conv"]


def test_qaft_layers_keep_the_grids_that_are_loaded():
    trained = iao.QuantConv2d(3, 4, 3)
    trained(torch.randn(2, 3, 8, 8))
    layer = iao.QuantConv2d(3, 4, 3, qaft=True)
    layer.load_state_dict(trained.state_dict())
    layer(100 * torch.randn(2, 3, 8, 8)).sum().backward()
    assert torch.equal(layer.input_quantizer.scale, trained.input_quantizer.scale)
    assert torch.equal(layer.weight_quantizer.scale, trained.weight_quantizer.scale)


@pytest.mark.parametrize("module", [wbwtab, dorefa, iao])
def test_inference_layers_take_their_weights_as_they_are(module):
    layer = module.QuantConv2d(3, 4, 3, quant_inference=True)
    assert not isinstance(layer.weight_quantizer, FakeQuantizer)
    assert torch.equal(layer.quantized_weight(), layer.weight)
    assert dict(fake_quantizers(layer)).keys() == (
        set() if module is wbwtab else {"input_quantizer"}
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: wbwtab.QuantConv2d(3, 4, 3, W=4), r"W must be one of 2 \(binary\), 3 \(ternary\)"),
        (lambda: wbwtab.ActivationQuantizer(A=3), "A must be one of 2"),
        (lambda: dorefa.QuantLinear(3, 4, w_bits=1), "use the quantizer 'wbwtab'"),
        (lambda: iao.QuantLinear(3, 4, q_type=2), "q_type must be one of 0"),
        (lambda: iao.QuantLinear(3, 4, a_bits=1), "a_bits must be between 2 and 16"),
        (lambda: iao.QuantReLU(ptq=True, percentile=2.0), "percentile must be"),
    ],
)
def test_what_stands_for_nothing_is_refused(make, words):
    with pytest.raises(OptionError, match=words):
        make()
