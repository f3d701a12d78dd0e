"""Models that nobody wrote for micronet go through training, calibration and the engine."""

import warnings

import any_model
import pytest
import torch
from shallow_models import SHALLOW
from torch import nn

from micronet import registry
from micronet.quantization import fake_quantizers, layers_left_in_float

MODELS = ["alexnet", "squeezenet1_1", *SHALLOW]
WITHOUT_DATA = ["resnet", "shufflenet_v2"]


def examined(name, quantizer, directory):
    torch.manual_seed(0)
    model, size = (SHALLOW[name](), 64) if name in SHALLOW else any_model.torchvision_model(name)
    return any_model.examine(model, size, registry.create("quantizer", quantizer), directory)


@pytest.mark.parametrize("name", MODELS)
def test_a_torchvision_model_trains_and_its_engine_agrees(name, tmp_path):
    outcome = examined(name, "iao", tmp_path)
    assert outcome.traced
    # Rounding amplifies a float's last bits, so no engine agrees better than that allows.
    assert outcome.sqnr_db >= min(20, outcome.own_sqnr_db - 12)


@pytest.mark.parametrize("quantizer", ["dorefa", "wbwtab"])
@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_low_widths_train_and_deploy_too(name, quantizer, tmp_path):
    outcome = examined(name, quantizer, tmp_path)
    assert outcome.quantized > 8
    assert outcome.sqnr_db >= min(20, outcome.own_sqnr_db - 12)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return 2 * x

    @staticmethod
    def backward(_ctx, gradient):
        return 2 * gradient


class OwnBackward(nn.Module):
    """Defines a backward of its own, which a graph would lose."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(Doubled.apply(self.conv(x)).relu().mean((2, 3)))


def test_a_model_that_cannot_be_followed_reaches_the_engine_too(tmp_path):
    torch.manual_seed(0)
    quantizer = registry.create("quantizer", "iao")
    outcome = any_model.examine(OwnBackward(), 16, quantizer, tmp_path)
    assert (outcome.traced, outcome.quantized) == (False, 2)
    assert outcome.sqnr_db > 30


class Attending(nn.Module):
    """A convolution that is called, one whose weight is only read, and torch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.scale = nn.Parameter(torch.ones(16, 1, 1))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = (self.patches(x) * self.scale).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))


def test_what_keeps_its_weights_in_float_is_named_once():
    images = torch.randn(2, 3, 16, 16)
    with pytest.warns(
        UserWarning, match="in float in 'attention' .*, 'attention.out_proj'"
    ) as told:
        prepared = registry.create("quantizer", "iao").prepare(Attending(), (images,))
    assert len(told) == 1
    assert told[0].filename == __file__
    assert layers_left_in_float(prepared) == ["attention", "attention.out_proj"]


def quantized_activations(forward):
    """Names of the tensors that are quantized for a convolution and what `forward` does next."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.after = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
            self.narrow, self.act = nn.Conv2d(4, 4, 1), nn.ReLU()

        def forward(self, x):
            return forward(self, self.act(self.conv(x)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the layer that `forward` does not call
        quantizer = registry.create("quantizer", "iao")
        prepared = quantizer.prepare(Net(), (torch.randn(2, 3, 8, 8),))
    names = [name for name, _ in fake_quantizers(prepared)]
    return [name.partition(".")[2] for name in names if name.startswith("activation_quantizers.")]


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.after(nn.functional.adaptive_max_pool2d(x, 2)),
        lambda net, x: net.after(nn.functional.interpolate(x, scale_factor=2)),
        lambda net, x: net.after(nn.functional.pad(x, (1, 1, 1, 1))),
        lambda net, x: net.after(x[:, :, 1:]),
        lambda net, x: net.narrow(x.chunk(2, 1)[0]),
    ],
    ids=["adaptive max pool", "nearest", "zero padding", "slice", "chunks"],
)
def test_what_only_moves_values_shares_its_inputs_quantizer(forward):
    assert quantized_activations(forward) == ["x", "act"]


def test_a_padding_with_another_number_gets_a_quantizer_of_its_own():
    found = quantized_activations(lambda net, x: net.after(nn.functional.pad(x, (1, 1), value=3.0)))
    assert found == ["x", "pad"]


def test_a_product_of_activations_reads_integers_and_one_with_a_number_does_not():
    assert quantized_activations(lambda net, x: x * net.after(x)) == ["x", "act", "after"]
    assert quantized_activations(lambda net, x: net.after(x) * 0.5) == ["x", "act"]
