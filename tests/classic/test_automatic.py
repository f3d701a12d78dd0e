"""`prepare` of the three classic quantizers."""

import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn

import micronet
from micronet.compression.quantization.wbwtab import quantize as wbwtab
from micronet.compression.quantization.wqaq.dorefa import quantize as dorefa
from micronet.compression.quantization.wqaq.iao import quantize as iao
from micronet.errors import QuantizationError
from micronet.quantization import fake_quantizers, is_ready, quantized_layers

ALL = [
    (wbwtab, {}),
    (wbwtab, {"A": 32, "W": 3}),
    (dorefa, {"a_bits": 4, "w_bits": 4}),
    (iao, {}),
    (iao, {"q_type": 1, "q_level": 1, "weight_observer": 1, "bn_fuse": True}),
    (iao, {"ptq": True, "percentile": 0.999, "pretrained_model": True}),
]
ids = [f"{module.__name__.split('.')[-2]}-{options}" for module, options in ALL]


@pytest.mark.parametrize(("module", "options"), ALL, ids=ids)
def test_a_network_is_quantized_and_its_keys_stay(module, options, lenet, grey):
    keys, before = set(lenet.state_dict()), lenet(grey)
    model = module.prepare(lenet, inplace=False, **options)
    assert model is not lenet
    assert torch.equal(lenet(grey), before)
    assert keys <= set(model.state_dict())
    model.load_state_dict(lenet.state_dict(), strict=False)
    model.train()(grey).square().sum().backward()
    assert is_ready(model)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("module", "options"), ALL, ids=ids)
def test_in_place_the_callers_network_and_parameters_change(module, options, lenet, grey):
    expected = module.prepare(lenet, **options)
    parameters, layer = dict(lenet.named_parameters()), lenet.fc1
    assert module.prepare(lenet, inplace=True, **options) is lenet
    assert dict(lenet.named_parameters()).keys() == parameters.keys()
    for name, parameter in lenet.named_parameters():
        assert parameter is parameters[name]
    assert layer.weight is lenet.fc1.weight
    assert list(dict(quantized_layers(lenet))) == list(dict(quantized_layers(expected)))
    assert torch.equal(lenet(grey), expected(grey))


def test_a_single_layer_is_quantized_in_place_too():
    layer = nn.Linear(3, 4)
    iao.prepare(layer, inplace=True)
    assert dict(fake_quantizers(layer)).keys() == {"weight_quantizer", "input_quantizer"}


def test_layers_count_in_the_order_in_which_they_run(lenet):
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 2)
            self.relu = nn.ReLU()
            self.middle = nn.Linear(4, 4)
            self.first = nn.Linear(3, 4)

        def forward(self, x):
            return self.last(self.relu(self.middle(self.first(x))))

    quantized = dict(quantized_layers(wbwtab.prepare(Backwards())))
    assert quantized.keys() == {"middle"}
    assert dict(quantized_layers(dorefa.prepare(Backwards()))).keys() == {"middle", "last"}


def test_where_the_order_can_not_be_followed_the_declaration_counts():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(self.first(x if x.sum() > 0 else -x))

    model = dorefa.prepare(Branching())
    assert dict(quantized_layers(model)).keys() == {"second"}
    assert model(torch.rand(2, 3)).shape == (2, 2)


def test_a_network_without_relu_modules_is_told_that_activations_stay_float():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x).relu()
            return x

    with pytest.warns(UserWarning, match="activations stay in float"):
        wbwtab.prepare(Functional())


def test_qaft_keeps_grids_and_statistics(small_net, images):
    trained = iao.prepare(small_net)
    trained.train()(images)
    model = iao.prepare(small_net, qaft=True)
    model.load_state_dict(trained.state_dict())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()(10 * images).square().sum().backward()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert model.stem.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("module", [wbwtab, dorefa, iao])
def test_weights_that_are_quantized_already_are_taken_as_they_are(module, lenet, grey):
    model = module.prepare(lenet, quant_inference=True)
    for _, layer in quantized_layers(model):
        assert torch.equal(layer.quantized_weight(), layer.weight)


@pytest.mark.parametrize("module", [wbwtab, dorefa, iao])
def test_a_quantized_network_is_not_quantized_again(module, lenet):
    with pytest.raises(QuantizationError, match="quantized already"):
        module.prepare(iao.prepare(lenet))


@pytest.mark.parametrize("check", ["quant_test_manual", "quant_test_auto"])
def test_the_check_after_installing(check, capsys):
    getattr(micronet, check)()
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "quant_model is ready",
        "micronet is ready",
    ]


@pytest.mark.parametrize(("name", "options"), [("nin", {}), ("nin_gc", {"cfg": [32] * 8})])
def test_a_classic_model_is_the_registrys(name, options):
    net = importlib.import_module(f"micronet.models.{name}").Net(**options)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_resnet_is_the_registrys():
    from micronet.models import resnet

    assert resnet.resnet18(num_classes=5)(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert all(callable(getattr(resnet, name)) for name in resnet.__all__)


def test_importing_micronet_still_loads_no_torch():
    code = "import sys, micronet; dir(micronet); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
