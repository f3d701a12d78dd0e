"""Single layers in float, or with options of their own."""

import numpy as np
import pytest
import torch
from torch import nn

from micronet import registry
from micronet.errors import OptionError, QuantizationError
from micronet.measure import weight_bits
from micronet.quantization import AffineFakeQuantizer, fake_quantizers, quantized_layers
from micronet.techniques import ByLayer

X = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A stem whose activation two layers read, and a head behind a flatten."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.pool((self.left(x) + self.right(x)).relu()).flatten(1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def prepare(net, choices, name="iao", **options):
    quantizer = ByLayer(registry.create("quantizer", name, **options), choices)
    prepared = quantizer.prepare(net, (X[:2],))
    quantizer.calibrate(prepared, [X])
    return prepared.eval()


def widths(prepared):
    return {
        name: layer.weight_quantizer.grid.bits
        for name, layer in quantized_layers(prepared)
        if isinstance(layer.weight_quantizer, AffineFakeQuantizer)
    }


def activations(prepared):
    """Widths of the quantized activations, by the nodes' names."""
    return {
        name.rpartition(".")[2]: quantizer.grid.bits
        for name, quantizer in fake_quantizers(prepared)
        if "activation_quantizers" in name
    }


def test_a_layer_in_float_computes_with_its_own_weight_and_input(net):
    prepared = prepare(net, {"head": "float"})
    assert type(prepared.head) is nn.Linear
    assert torch.equal(prepared.head.weight, net.head.weight)
    assert sorted(widths(prepared)) == ["left", "right", "stem"]
    everywhere = activations(prepare(net, {"head": {"w_bits": 8}}))
    assert len(everywhere) == len(activations(prepared)) + 1


def test_all_layers_but_one_in_float_compute_as_float_there(net):
    prepared = prepare(net, {"stem": {"a_bits": 16, "w_bits": 16}, "*": "float"})
    assert list(widths(prepared)) == ["stem"]
    with torch.no_grad():
        assert torch.allclose(prepared(X), net(X), atol=1e-3)


def test_a_width_of_its_own(net):
    prepared = prepare(net, {"left": {"w_bits": 4}, "head": {"w_bits": 6, "a_bits": 6}})
    assert widths(prepared) == {"stem": 8, "left": 4, "right": 8, "head": 6}
    found = activations(prepared)
    assert sorted(found.values()) == sorted([*[8] * (len(found) - 1), 6])


def test_readers_of_one_activation_that_do_not_agree_leave_it_as_it_is(net):
    both = prepare(net, {"left": {"a_bits": 4}, "right": {"a_bits": 4}})
    one = prepare(net, {"left": {"a_bits": 4}})
    assert 4 in activations(both).values()
    assert 4 not in activations(one).values()


def test_the_first_pattern_that_fits_counts(net):
    prepared = prepare(net, {"left": {"w_bits": 3}, "*e*": {"w_bits": 5}})
    assert widths(prepared) == {"stem": 5, "left": 3, "right": 8, "head": 5}


def test_the_model_itself_stays_as_it_is(net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    prepare(net, {"head": "float", "stem": {"w_bits": 4}})
    assert type(net.head) is nn.Linear
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("choices", "error", "sentence"),
    [
        ({"haed": "float"}, QuantizationError, "'haed'. Did you mean 'head'?"),
        ({"pool": "float"}, QuantizationError, "'pool'. It stays in float as it is."),
        ({"*": "float"}, QuantizationError, "leaves every layer in float"),
        ({"head": "int8"}, OptionError, "layers.head must be float, or a mapping of the"),
        ({"head": {}}, OptionError, "layers.head must be float, or a mapping of the"),
        ({"head": {"bits": 4}}, OptionError, "layers.head has no option 'bits'."),
        ({"head": {"w_bits": 99}}, OptionError, "layers.head: w_bits must be between 2 and 16"),
    ],
)
def test_what_makes_no_sense_is_told(net, choices, error, sentence):
    with pytest.raises(error) as told:
        prepare(net, choices)
    assert sentence in str(told.value)


def test_folding_while_training_allows_float_alone(net):
    with pytest.raises(OptionError, match="a layer can only be float"):
        prepare(net, {"head": {"w_bits": 4}}, fold_bn="batch", per_channel=False)
    prepare(net, {"head": "float"}, fold_bn="batch", per_channel=False)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("name", "options", "choices"),
    [
        ("iao", {}, {"head": "float", "left": {"w_bits": 4}}),
        ("iao", {}, {"stem": "float"}),
        ("iao", {}, {"left": "float"}),
        ("iao", {}, {"right": {"per_channel": False, "w_bits": 5}}),
        ("dorefa", {}, {"head": "float", "left": {"w_bits": 4}}),
        ("wbwtab", {"activations": "float"}, {"left": "float"}),
        ("wbwtab", {"first_and_last": "int8"}, {"left": {"weights": "ternary"}}),
    ],
)
def test_engines_compute_what_is_simulated(net, backend, name, options, choices, tmp_path):
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    prepared = prepare(net, choices, name, **options)
    quantizer = registry.create("quantizer", name)
    converted = quantizer.convert(prepared)
    engine = registry.create("deploy_backend", backend)
    artifact = engine.export(converted, (X[:2],), tmp_path)
    found = engine.load(artifact, threads=1)(X.numpy())
    with torch.no_grad():
        expected = converted(X).numpy()
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


def test_bits_are_counted_layer_by_layer(net):
    assert weight_bits(prepare(net, {"left": {"w_bits": 4}, "right": {"w_bits": 4}})) < 8
