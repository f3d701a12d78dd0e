"""What `iao` does beyond ranges when it calibrates: equalize, learn rounding, correct biases."""

import copy

import numpy as np
import pytest
import torch
from any_model import sqnr_db
from torch import nn

import micronet
from micronet.errors import OptionError, QuantizationError
from micronet.quantization import fake_quantizers, in_mode, quantized_layers
from micronet.storage.packing import save_packed

ALL = {"equalize": True, "rounding": "learned", "bias_correction": True}


class Mobile(nn.Module):
    """Pointwise, depthwise and grouped convolutions, with ReLU or ReLU6 between them."""

    def __init__(self, activation=nn.ReLU) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3, 2, padding=1), activation()
        self.depthwise, self.second = nn.Conv2d(8, 8, 3, padding=1, groups=8), activation()
        self.project = nn.Conv2d(8, 6, 1)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 5)
        with torch.no_grad():
            self.stem.weight.mul_(10)  # so that 6 is reached

    def forward(self, x):
        x = self.second(self.depthwise(self.first(self.stem(x))))
        x = self.project(x)
        return self.head(self.pool(x + self.grouped(x)).flatten(1))


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        x = self.conv(x)
        if x.mean() > 1e6:
            x = -x
        return self.head(x.relu().mean((2, 3)))


class CalledTwice(Mobile):
    def __init__(self) -> None:
        super().__init__()
        self.grouped.groups, self.grouped.weight = 1, nn.Parameter(torch.randn(6, 6, 3, 3) / 7)

    def forward(self, x):
        x = self.project(self.second(self.depthwise(self.first(self.stem(x)))))
        return self.head(self.pool(self.grouped(self.grouped(x).relu())).flatten(1))


class Tokens(nn.Module):
    """Linear layers on [batch, tokens, channels], as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hidden, self.head = (
            nn.Conv2d(3, 8, 4, 4),
            nn.Linear(8, 16),
            nn.Linear(16, 5),
        )

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.hidden(x).relu()).mean(1)


@pytest.fixture
def models(small_net, create, images):
    """Small models of several kinds, by name."""
    torch.manual_seed(2)
    fused = create("fuser", "bn").fuse(small_net, (images,))
    return {
        "batch norms": small_net,
        "fused": fused,
        "mobile": Mobile(),
        "relu6": Mobile(nn.ReLU6),
        "called twice": CalledTwice(),
        "tokens": Tokens(),
    }


@pytest.fixture
def calibrate(create, images):
    def build(model, **options):
        quantizer = create("quantizer", "iao", **{"a_observer": "minmax", **options})
        prepared = quantizer.prepare(model.eval(), (images[:2],))
        quantizer.calibrate(prepared, images.split(4))
        return prepared.eval()

    return build


@torch.no_grad()
def outputs_in_float(model, x):
    with in_mode("off", model):
        return model(x)


NAMES = ["batch norms", "fused", "mobile", "relu6", "called twice", "tokens"]


@pytest.mark.parametrize("name", NAMES)
def test_equalization_leaves_the_float_model_as_it_is(models, calibrate, images, name):
    model = models[name].eval()
    equalized = calibrate(model, equalize=True)
    assert sqnr_db(outputs_in_float(equalized, images), model(images).detach()) >= 100
    before, after = (dict(m.named_parameters()) for m in (model, equalized))
    assert any(not torch.equal(before[key], after[key]) for key in before) == (name != "tokens")


@torch.no_grad()
def test_equalization_finds_back_what_a_badly_scaled_model_has_lost(small_net, calibrate, images):
    small_net.eval()
    expected = small_net(images)
    factors = torch.logspace(-2, 2, 8)
    for bn in (small_net.stem_bn, small_net.body_bn):
        bn.weight.mul_(factors)
        bn.bias.mul_(factors)
    small_net.body.weight.div_(factors.reshape(1, -1, 1, 1))
    small_net.head.weight.div_(factors)
    plain, equalized = (calibrate(small_net, equalize=each)(images) for each in (False, True))
    assert sqnr_db(equalized, expected) > 10 + sqnr_db(plain, expected)


@torch.no_grad()
def test_equalization_brings_channels_to_the_range_of_the_weights_that_read_them(calibrate, images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    equalized = calibrate(model, equalize=True)
    made = outputs_in_float(equalized.get_submodule("0"), images).relu().amax((0, 2, 3))
    read = equalized.get_submodule("2").weight.abs().amax((0, 2, 3))
    assert torch.allclose(made, read, rtol=1e-4)


def test_equalization_of_an_untraceable_model_is_refused(calibrate):
    with (
        pytest.warns(UserWarning, match="can't be followed"),
        pytest.raises(QuantizationError, match=r"equalize needs .* Untraceable can't be followed"),
    ):
        calibrate(Untraceable(), equalize=True)


@pytest.mark.parametrize("rounding", ["nearest", "learned"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_corrected_biases_leave_no_mean_error(models, calibrate, images, name, rounding):
    model = models[name].eval()
    expected = model(images)
    plain = calibrate(model, w_bits=4, rounding=rounding)(images)
    corrected = calibrate(model, w_bits=4, rounding=rounding, bias_correction=True)(images)
    smallest = 1e-5 * expected.abs().max()
    assert (corrected - expected).mean(0).abs().max() < smallest
    assert (plain - expected).mean(0).abs().max() > 10 * smallest


@torch.no_grad()
def test_a_batch_norm_takes_up_what_a_layer_without_bias_can_not(small_net, calibrate, images):
    small_net.eval()
    assert small_net.body.bias is None
    corrected = calibrate(small_net, w_bits=4, bias_correction=True)
    means = []
    for model in (small_net, corrected):
        model.get_submodule("body_bn").register_forward_hook(
            lambda _bn, _inputs, output: means.append(output.mean((0, 2, 3)))
        )
        model(images)
    assert torch.allclose(*means, atol=1e-5)


LAYERS = {
    "conv2d": (nn.Conv2d(6, 8, 3, 2, padding=1), (6, 9, 9)),
    "dilated, same": (nn.Conv2d(6, 8, 3, padding="same", dilation=2), (6, 9, 9)),
    "reflected": (nn.Conv2d(6, 8, (1, 5), padding=(0, 2), padding_mode="reflect"), (6, 9, 9)),
    "grouped": (nn.Conv2d(6, 9, 3, groups=3, bias=False), (6, 9, 9)),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6), (6, 9, 9)),
    "conv1d": (nn.Conv1d(6, 8, 3, padding=1), (6, 20)),
    "conv3d": (nn.Conv3d(2, 4, 3, padding=1), (2, 6, 6, 6)),
    "linear": (nn.Linear(70, 8), (70,)),
    "linear on tokens": (nn.Linear(12, 8, bias=False), (10, 12)),
}


@pytest.mark.parametrize("options", [{}, {"w_symmetric": False, "per_channel": False}], ids=str)
@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_learned_codes_are_beside_the_nearest_and_never_worse(
    create, name, bias_correction, options
):
    layer, shape = LAYERS[name]
    torch.manual_seed(3)
    nn.init.normal_(layer.weight)
    x = torch.randn(16, *shape).cumsum(-1) + 1
    model = nn.Sequential(layer).eval()
    codes, errors = [], []
    for rounding in ("nearest", "learned"):
        quantizer = create(
            "quantizer",
            "iao",
            w_bits=4,
            rounding=rounding,
            bias_correction=bias_correction,
            **options,
        )
        prepared = quantizer.prepare(model, (x[:2],))
        quantizer.calibrate(prepared, [x])
        ((_, stored),) = quantized_layers(quantizer.convert(prepared))
        codes.append(stored.weight_quantizer.codes.int())
        error = (prepared.eval()(x) - model(x)).square()
        errors.append(error.flatten(2).mean((0, 2)) if "linear" not in name else error.mean(0))
    nearest, learned = codes
    assert (learned - nearest).abs().max() == 1
    grid = next(q for n, q in fake_quantizers(prepared) if n.endswith("weight_quantizer")).grid
    assert grid.quant_min <= learned.min()
    assert learned.max() <= grid.quant_max
    if errors[0].dim() > 1:
        errors = [error.mean(0) for error in errors]
    assert (errors[1] <= errors[0] * (1 + 1e-4)).all()
    assert errors[1].sum() < 0.95 * errors[0].sum()


@torch.no_grad()
def test_channels_that_are_always_zero_do_no_harm(calibrate, images):
    model = Mobile().eval()
    model.stem.weight[:2], model.stem.bias[:2] = 0, -1
    model.project.weight[0], model.project.bias[0] = 0, 0
    refined = calibrate(model, **ALL)(images)
    assert sqnr_db(refined, model(images)) > 30


@pytest.mark.filterwarnings("ignore:torch.fx can't trace")
@pytest.mark.parametrize("name", [*NAMES, "untraceable"])
@torch.no_grad()
def test_all_together_come_closer_to_the_float_model(models, calibrate, images, name):
    model = {**models, "untraceable": Untraceable()}[name].eval()
    options = {**ALL, "equalize": name != "untraceable", "w_bits": 4}
    expected = model(images)
    plain, refined = calibrate(model, w_bits=4), calibrate(model, **options)
    assert sqnr_db(refined(images), expected) > 3 + sqnr_db(plain(images), expected)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_refined_model_is_fused_packed_loaded_and_deployed_as_any_other(
    models, create, calibrate, images, name, tmp_path
):
    prepared = calibrate(models[name], **ALL)
    again = create("quantizer", "iao").prepare(models[name], (images[:2],)).eval()
    again.load_state_dict(prepared.state_dict())
    assert torch.equal(again(images), prepared(images))

    fused = create("fuser", "bn").fuse(prepared, (images[:2],))
    converted = create("quantizer", "iao").convert(fused)
    expected = converted(images)
    assert sqnr_db(expected, prepared(images)) > 80
    save_packed(fused, tmp_path / "model.safetensors")
    packed = micronet.load_packed(tmp_path / "model.safetensors", copy.deepcopy(fused))
    assert torch.equal(packed(images), expected)
    backend = create("deploy_backend", "onnxruntime")
    runner = backend.load(backend.export(converted, (images[:2],), tmp_path / "engine"))
    step = expected.abs().max() / 127
    assert np.abs(runner(images.numpy()) - expected.numpy()).max() < 2 * step


def test_a_refined_model_can_be_frozen_and_trained_on(small_net, create, calibrate, images):
    prepared = calibrate(small_net, **ALL).train()
    create("quantizer", "iao").freeze(prepared)
    before = prepared.body.weight_quantizer.quantize(prepared.body.weight).codes
    prepared(images).square().mean().backward()
    assert prepared.body.weight.grad.abs().sum() > 0
    assert torch.equal(prepared.body.weight_quantizer.quantize(prepared.body.weight).codes, before)


@pytest.mark.parametrize("option", [{name: value} for name, value in ALL.items()], ids=str)
def test_a_frozen_model_is_refused(small_net, create, calibrate, images, option):
    prepared = calibrate(small_net)
    create("quantizer", "iao").freeze(prepared)
    with pytest.raises(QuantizationError, match="Calibrate before freeze"):
        create("quantizer", "iao", **option).calibrate(prepared, [images])


@pytest.mark.parametrize("option", [{name: value} for name, value in ALL.items()], ids=str)
def test_no_batches_are_refused(small_net, create, images, option):
    quantizer = create("quantizer", "iao", **option)
    with pytest.raises(QuantizationError, match="no batches"):
        quantizer.calibrate(quantizer.prepare(small_net, (images[:2],)), iter([]))


def test_another_rounding_is_refused_with_those_that_exist(create):
    with pytest.raises(OptionError, match="learned"):
        create("quantizer", "iao", rounding="learnt")


def test_a_model_that_mixes_its_batch_is_refused(create):
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, x):
            return self.head(x.transpose(0, 1)).mean(0)

    x = torch.randn(8, 5, 4)
    quantizer = create("quantizer", "iao", bias_correction=True)
    prepared = quantizer.prepare(Sequence(), (x[:2],))
    with pytest.raises(QuantizationError, match=r"'head' gets 5 rows for 16 images"):
        quantizer.calibrate(prepared, [x])
