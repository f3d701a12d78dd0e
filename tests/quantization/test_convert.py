"""The inference form computes what the simulation did."""

import copy

import pytest
import torch
from torch import nn

from micronet.errors import QuantizationError
from micronet.quantization import StoredWeight, convert

OPTIONS = [
    {},
    {"a_symmetric": True},
    {"per_channel": False},
    {"w_symmetric": False},
    {"w_symmetric": False, "per_channel": False},
    {"w_bits": 2, "a_bits": 2},
    {"w_bits": 3, "a_bits": 5},
    {"w_bits": 16, "a_bits": 16},
    {"w_bits": 12, "a_bits": 9, "w_symmetric": False},
    {"w_observer": "moving_average", "a_observer": "minmax"},
]


class EveryLayer(nn.Module):
    """One of each layer type that can be quantized, and grouped, dilated and strided forms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, padding_mode="reflect")
        self.depthwise = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6, bias=False)
        self.grouped = nn.Conv2d(6, 8, 1, groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
        self.conv3d = nn.Conv3d(1, 2, 3, padding=1)
        self.conv1d = nn.Conv1d(8, 5, 3)
        self.head = nn.Linear(5, 10, bias=False)

    def forward(self, x):
        x = self.up(self.grouped(self.depthwise(self.conv(x)).relu()))
        x = self.conv3d(x.unsqueeze(1)).flatten(1, 2)
        return self.head(self.conv1d(x.flatten(2)).mean(2))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_outputs_are_the_same_bit_for_bit(small_net, images, calibrated, options):
    prepared = calibrated(small_net, images, **options)
    assert torch.equal(convert(prepared)(images), prepared(images))


@pytest.mark.parametrize("options", [{}, {"per_channel": False, "w_symmetric": False}], ids=str)
def test_every_layer_type_converts_bit_for_bit(images, calibrated, options):
    torch.manual_seed(0)
    prepared = calibrated(EveryLayer(), images, **options)
    converted = convert(prepared)
    assert sum(isinstance(module, StoredWeight) for module in converted.modules()) == 7
    assert torch.equal(converted(images), prepared(images))


def test_a_trained_model_converts_to_what_evaluation_shows(small_net, images, iao):
    prepared = iao(w_bits=4, a_bits=4).prepare(small_net, (images,)).train()
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(prepared(images), torch.arange(8)).backward()
        optimizer.step()
    prepared.eval()
    assert torch.equal(convert(prepared)(images), prepared(images))


@pytest.mark.parametrize(("bits", "dtype"), [(4, torch.int8), (8, torch.int8), (9, torch.int16)])
def test_weights_are_integers_of_their_width(small_net, images, calibrated, bits, dtype):
    converted = convert(calibrated(small_net, images, w_bits=bits))
    assert "stem.weight" not in converted.state_dict()
    codes = converted.stem.weight_quantizer.codes
    assert codes.dtype == dtype
    assert codes.abs().max() == 2 ** (bits - 1) - 1


def test_the_prepared_model_stays_trainable(small_net, images, calibrated):
    prepared = calibrated(small_net, images).train()
    state = copy.deepcopy(prepared.state_dict())
    converted = convert(prepared)
    assert not converted.training
    assert prepared.training
    assert prepared.stem.weight.requires_grad
    for key, tensor in state.items():
        assert torch.equal(prepared.state_dict()[key], tensor)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_converted_models_state_loads_into_another(
    small_net, images, calibrated, iao, per_channel
):
    saved = convert(calibrated(small_net, images, per_channel=per_channel))
    quantizer = iao(per_channel=per_channel)
    loaded = convert(quantizer.prepare(type(small_net)(), (images,)))
    loaded.load_state_dict(saved.state_dict(), strict=True)
    assert torch.equal(loaded(images), saved(images))


def test_a_copy_of_a_converted_model_computes_the_same(small_net, images, calibrated):
    converted = convert(calibrated(small_net, images))
    assert torch.equal(copy.deepcopy(converted)(images), converted(images))


def test_converting_twice_changes_nothing(small_net, images, calibrated):
    once = convert(calibrated(small_net, images))
    assert torch.equal(convert(once)(images), once(images))


def test_a_float_model_converts_to_itself(small_net, images):
    assert torch.equal(convert(small_net)(images), small_net.eval()(images))


def test_a_model_that_saw_no_data_says_so_when_it_is_run(small_net, images, iao):
    converted = convert(iao().prepare(small_net, (images,)))
    with pytest.raises(QuantizationError, match="seen no data"):
        converted(images)
