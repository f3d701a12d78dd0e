"""What the quantizer `iao` accepts, and what its options do."""

import pytest
import torch

from micronet.errors import OptionError, PluginError
from micronet.quantization import fake_quantizers, quantized_layers
from micronet.techniques import Scheme


@pytest.mark.parametrize("name", ["w_bits", "a_bits"])
@pytest.mark.parametrize("bits", [1, 17, 0, -8, 8.0, "8", True])
def test_a_width_that_it_does_not_have_is_refused(create, name, bits):
    with pytest.raises(OptionError, match=rf"{name} must be (between 2 and 16|an integer)"):
        create("quantizer", "iao", **{name: bits})


def test_a_misspelt_option_is_answered_with_the_right_one(create):
    with pytest.raises(OptionError, match="Did you mean 'w_bits'"):
        create("quantizer", "iao", wbits=4)


def test_an_unknown_observer_is_named_with_the_installed_ones(create):
    with pytest.raises(PluginError, match=r"'minmx'.*Did you mean 'minmax'"):
        create("quantizer", "iao", a_observer="minmx")


def test_an_unknown_target_is_named_with_the_installed_ones(create):
    with pytest.raises(PluginError, match=r"'onnxrutime'.*Did you mean 'onnxruntime'"):
        create("quantizer", "iao", target="onnxrutime")


def test_an_option_goes_before_the_target(create):
    quantizer = create("quantizer", "iao", target="onnxruntime", a_symmetric=True)
    assert quantizer.scheme == Scheme(a_symmetric=True)


def test_an_observer_takes_options_of_its_own(create, small_net, images):
    choice = {"name": "moving_average", "momentum": 1.0}
    prepared = create("quantizer", "iao", a_observer=choice).prepare(small_net, (images,))
    for batch in (images, images / 2):
        prepared(batch)
    assert prepared.activation_quantizers.x.observer.high == (images / 2).max()


def test_a_wrong_option_of_an_observer_is_refused_at_once(create):
    with pytest.raises(OptionError, match="momentum must be"):
        create("quantizer", "iao", a_observer={"name": "moving_average", "momentum": 2})


@pytest.mark.parametrize(
    ("options", "weights", "activations"),
    [
        ({}, (-127, 127), (0, 255)),
        ({"w_bits": 4, "a_bits": 4}, (-7, 7), (0, 15)),
        ({"w_symmetric": False, "a_symmetric": True}, (0, 254), (-128, 127)),
        ({"w_bits": 2, "w_symmetric": False, "a_bits": 16}, (0, 2), (0, 65535)),
    ],
    ids=str,
)
def test_codes_are_those_of_the_documented_formulas(
    create, small_net, images, options, weights, activations
):
    prepared = create("quantizer", "iao", **options).prepare(small_net, (images,))
    for name, quantizer in fake_quantizers(prepared):
        wanted = weights if name.endswith("weight_quantizer") else activations
        assert (quantizer.grid.quant_min, quantizer.grid.quant_max) == wanted


@pytest.mark.parametrize("per_channel", [True, False])
def test_each_output_channel_has_a_scale_unless_the_layer_shares_one(
    create, small_net, images, per_channel
):
    prepared = create("quantizer", "iao", per_channel=per_channel).prepare(small_net, (images,))
    for _, layer in quantized_layers(prepared):
        largest = layer.weight.detach().abs()
        largest = largest.flatten(1).amax(1) if per_channel else largest.max()
        assert torch.allclose(layer.weight_quantizer.scale, largest / 127)
