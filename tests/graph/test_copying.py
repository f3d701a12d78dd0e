"""Copies of models as users have them, for every technique."""

import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from micronet.errors import MicronetError
from micronet.graph.copying import copy_of
from micronet.registry import create

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        x = self.second(self.bn(self.first(x)).relu()).relu()
        return self.last(x.mean((2, 3)))


class Square(nn.Module):
    """A parametrization of somebody's own."""

    def forward(self, weight):
        return weight.square()


def old_weight_norm(net):
    nn.utils.weight_norm(net.first)
    nn.utils.weight_norm(net.last, dim=None)


def old_spectral_norm(net):
    nn.utils.spectral_norm(net.first)


def masks(net):
    prune.l1_unstructured(net.first, "weight", 0.5)
    prune.random_structured(net.second, "weight", 2, dim=0)
    prune.l1_unstructured(net.second, "weight", 0.5)  # both, in a container
    prune.l1_unstructured(net.last, "bias", 2)


def norm_and_mask(net):
    nn.utils.weight_norm(net.first)
    prune.l1_unstructured(net.second, "weight", 0.5)
    parametrizations.spectral_norm(net.last)


WAYS = {
    "old weight norm": old_weight_norm,
    "old spectral norm": old_spectral_norm,
    "weight norm": lambda net: parametrizations.weight_norm(net.first),
    "spectral norm": lambda net: parametrizations.spectral_norm(net.first),
    "orthogonal": lambda net: parametrizations.orthogonal(net.first),
    "own": lambda net: nn.utils.parametrize.register_parametrization(
        net.first, "weight", Square(), unsafe=True
    ),
    "masks": masks,
    "several": norm_and_mask,
}
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=WAYS)
def computed(request):
    """A model with computed weights that has been trained for a step."""
    torch.manual_seed(0)
    net = Net()
    WAYS[request.param](net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net(IMAGES).sum().backward()
    optimizer.step()
    return net


def test_computed_weights_become_what_they_are(computed):
    keys, expected = set(computed.state_dict()), computed.eval()(IMAGES)
    computed.train()
    with pytest.warns(UserWarning, match=r"Computed weights become plain ones.*first\.weight"):
        copied = copy_of(computed)
    assert set(copied.state_dict()) == set(Net().state_dict())
    assert dict(copied.named_parameters()).keys() == dict(Net().named_parameters()).keys()
    assert copied.training
    assert torch.allclose(copied.eval()(IMAGES), expected, atol=1e-6)
    copied(IMAGES).sum().backward()
    assert copied.first.weight.grad is not None
    assert set(computed.state_dict()) == keys
    assert torch.equal(computed.eval()(IMAGES), expected)
    computed.train()(IMAGES).sum().backward()


TECHNIQUES = {
    "iao": lambda model: create("quantizer", "iao").prepare(model, (IMAGES,)),
    "iao without inputs": lambda model: create("quantizer", "iao").prepare(model, ()),
    "dorefa": lambda model: create("quantizer", "dorefa").prepare(model, (IMAGES,)),
    "wbwtab": lambda model: create("quantizer", "wbwtab").prepare(model, (IMAGES,)),
    "fuser bn": lambda model: create("fuser", "bn").fuse(model, (IMAGES,)),
    "fuser binary_bn": lambda model: create("fuser", "binary_bn").fuse(model, (IMAGES,)),
    "pruner": lambda model: create("pruner", "normal").prune(model, (IMAGES,)).model,
}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_technique_takes_computed_weights_and_says_so_once(computed, technique):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = TECHNIQUES[technique](computed)
    said = [w for w in caught if "Computed weights" in str(w.message)]
    assert len(said) == 1
    assert result.train()(IMAGES).shape == (4, 5)
    if technique == "fuser bn":
        assert torch.allclose(result.eval()(IMAGES), computed.eval()(IMAGES), atol=1e-5)


def test_a_plain_model_is_copied_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = Net().eval()
        copied = copy_of(net)
    assert not copied.training
    assert torch.equal(copied(IMAGES), net(IMAGES))


def test_a_compiled_model_is_copied_as_it_was_before():
    net = Net().eval()
    assert type(copy_of(torch.compile(net))) is Net
    net.second = torch.compile(net.second)
    copied = copy_of(net)
    assert set(copied.state_dict()) == set(Net().state_dict())
    assert hasattr(net.second, "_orig_mod")


def exported():
    return torch.export.export(Net().eval(), (IMAGES,))


REFUSED = {
    "scripted": (lambda: torch.jit.script(Net()), "TorchScript.*pass the Python model"),
    "traced": (lambda: torch.jit.trace(Net().eval(), IMAGES), "TorchScript"),
    "partly scripted": (
        lambda: nn.Sequential(torch.jit.script(nn.ReLU()), Net()),
        "'0' of the model is a TorchScript",
    ),
    "exported": (exported, "ExportedProgram"),
    "module of an exported": (lambda: exported().module(), r"torch\.export"),
    "wrapped": (lambda: nn.DataParallel(Net()), r"DataParallel; pass .*model\.module"),
    "a state": (lambda: Net().state_dict(), r"must be a torch\.nn\.Module, got OrderedDict"),
}


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_python_model_is_refused_in_a_sentence(technique, case):
    make, words = REFUSED[case]
    with pytest.raises(MicronetError, match=words):
        TECHNIQUES[technique](make())


@pytest.mark.parametrize(
    ("attribute", "value", "kind"),
    [
        ("lock", threading.Lock(), "lock"),
        ("generator", (number for number in ()), "generator"),
        ("features", torch.ones(2, requires_grad=True) * 2, "tensor that a graph computed"),
        ("cache", {"last": torch.ones(2, requires_grad=True) * 2}, "dict"),
    ],
)
def test_an_attribute_that_refuses_is_named(attribute, value, kind):
    net = Net()
    setattr(net.second, attribute, value)
    with pytest.raises(MicronetError, match=f"'{attribute}' of Conv2d 'second', a {kind}"):
        copy_of(net)
    net = Net()
    setattr(net, attribute, value)
    with pytest.raises(MicronetError, match=f"'{attribute}' of the model, a {kind}"):
        copy_of(net)


def test_weights_that_a_hook_of_ones_own_computes_are_named():
    net = Net()
    free = nn.Parameter(net.first.weight.detach())
    del net.first.weight
    net.first.free = free
    net.first.register_forward_pre_hook(lambda m, _: setattr(m, "weight", m.free * 2))
    net(IMAGES)
    with pytest.raises(MicronetError, match="'weight' of Conv2d 'first'"):
        copy_of(net)


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    copied = copy_of(net)
    assert copied[0].weight is copied[1].weight
    assert copied[0].weight is not net[0].weight
