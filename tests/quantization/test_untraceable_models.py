"""What can't be followed is quantized layer by layer."""

import pytest
import torch
from torch import nn

from micronet.quantization import quantized_layers


class Branching(nn.Module):
    """Takes a path that depends on its input's values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = self.bn(self.conv(x))
        if x.mean() > 1e6:
            x = -x
        return self.head(x.mean((2, 3)))


@pytest.fixture
def prepared(iao, images):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"Branching can't be followed: .* quantizes its own"):
        return iao().prepare(Branching(), (images,))


def test_each_layer_quantizes_its_own_input(prepared):
    layers = dict(quantized_layers(prepared))
    assert layers.keys() == {"conv", "head"}
    quantizers = {id(layer.input_quantizer) for layer in layers.values()}
    assert len(quantizers) == 2
    assert None not in [layer.input_quantizer for layer in layers.values()]


def test_it_is_calibrated_trained_frozen_and_converted_like_any_other(prepared, iao, images):
    quantizer = iao()
    quantizer.calibrate(prepared, [images])
    prepared.train()(images).square().sum().backward()
    assert prepared.conv.weight.grad.isfinite().all()
    quantizer.freeze(prepared)
    prepared.eval()
    assert torch.equal(quantizer.convert(prepared)(images), prepared(images))


def test_its_float_state_loads_strictly(prepared):
    prepared.load_state_dict(Branching().state_dict(), strict=True)


def test_its_outputs_stay_close_to_the_float_models(prepared, iao, images):
    model = Branching().eval()
    prepared.load_state_dict(model.state_dict(), strict=True)
    iao().calibrate(prepared, [images])
    expected = model(images)
    assert (prepared.eval()(images) - expected).abs().max() < 0.05 * expected.abs().max()
