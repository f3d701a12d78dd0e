"""Tracing keeps a model's names and behaviour; conv-bn pairs follow the data."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from micronet.graph import TracingError, conv_bn_pairs, trace

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution and a batch norm; `forward` is the test's."""

    def __init__(self, forward, **modules) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)  # declared before the convolution that it follows
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        for name, module in modules.items():
            self.add_module(name, module)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


class WithUnused(nn.Module):
    """Modules, a parameter and a buffer that forward never touches."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Conv2d(3, 3, 1)
        self.head = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
        self.parts = nn.ModuleList([nn.Linear(2, 2), nn.Conv2d(3, 3, 1)])
        self.temperature = nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        return self.parts[1](self.used(x))


def test_every_module_parameter_and_buffer_keeps_its_name():
    model = WithUnused()
    traced = trace(model)
    assert dict(traced.named_modules()).keys() == dict(model.named_modules()).keys()
    assert traced.state_dict().keys() == model.state_dict().keys()
    assert dict(traced.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert type(traced.get_submodule("head.1")) is nn.BatchNorm1d


def test_parameters_are_shared_with_the_model_and_outputs_equal(small_net, images):
    small_net.eval()
    traced = trace(small_net)
    assert traced.stem.weight is small_net.stem.weight
    assert torch.equal(traced(images), small_net(images))


@pytest.mark.parametrize("training", [True, False])
def test_tracing_changes_neither_the_model_nor_its_mode(small_net, training):
    small_net.train(training)
    names, state = list(dict(small_net.named_modules())), copy.deepcopy(small_net.state_dict())
    traced = trace(small_net)
    assert traced.training is training
    assert list(dict(small_net.named_modules())) == names
    assert all(module.training is training for module in small_net.modules())
    assert all(torch.equal(tensor, state[key]) for key, tensor in small_net.state_dict().items())


def test_modules_with_a_mode_of_their_own_keep_it(small_net):
    small_net.train()
    small_net.stem_bn.eval()
    traced = trace(small_net)
    assert not small_net.stem_bn.training
    assert not traced.stem_bn.training


@pytest.mark.parametrize(
    "dropout",
    [
        lambda x, training: F.dropout(x, 0.5, training=training),
        lambda x, training: F.dropout(input=x, p=0.5, training=training),
        lambda x, training: F.dropout2d(x, 0.5, training),
        lambda x, training: F.alpha_dropout(x, 0.5, training),
    ],
    ids=["positional", "keywords", "dropout2d", "alpha_dropout"],
)
def test_functional_dropout_goes_on_working_in_both_modes(dropout):
    traced = trace(Net(lambda net, x: dropout(x, net.training)))
    assert torch.equal(traced.eval()(X), X)
    dropped = traced.train()(X)
    assert 0.2 < (dropped != X).float().mean() <= 1


def test_dropout_keeps_its_probability():
    traced = trace(Net(lambda net, x: F.dropout(x, 0.9, training=net.training)))
    torch.manual_seed(0)
    zeros = (traced.train()(torch.ones(10_000)) == 0).float().mean()
    assert float(zeros) == pytest.approx(0.9, abs=0.02)


def test_dropout_that_is_always_off_stays_off():
    traced = trace(Net(lambda _, x: F.dropout(x, 0.5, training=False))).train()
    assert torch.equal(traced(X), X)


def test_a_module_of_the_models_own_survives_whatever_dropout_is_called():
    model = Net(
        lambda net, x: F.dropout(net.dropout_module(x), 0.5, training=net.training),
        dropout_module=nn.Conv2d(3, 4, 1),
    ).eval()
    expected = model(X)
    traced = trace(model)
    assert isinstance(model.dropout_module, nn.Conv2d)
    assert torch.equal(traced(X), expected)


def test_a_model_that_differs_between_training_and_evaluation_is_refused():
    model = Net(lambda net, x: net.conv(x) if net.training else net.bn(x))
    with pytest.raises(TracingError, match="Net computes differently in train and eval mode"):
        trace(model)


class WithAuxiliaryHead(nn.Module):
    """In train mode a tuple of logits and a second branch's, in eval mode the logits alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aux, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = F.relu(self.conv(x))
        aux = F.dropout(F.relu(self.aux(x)), 0.5, self.training) if self.training else None
        x = self.head(x)
        return (x, aux) if self.training else x


def test_outputs_of_train_mode_alone_stay_outputs_of_train_mode():
    model = WithAuxiliaryHead()
    traced = trace(model)
    logits, aux = traced.train()(X)
    assert torch.equal(logits, model(X)[0])
    assert (aux == 0).any()
    assert torch.equal(traced.eval()(X), model.eval()(X))
    assert torch.equal(copy.deepcopy(traced).eval()(X), model(X))
    assert traced.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(trace(traced).eval()(X), model(X))


def test_any_calls_training_argument_goes_on_following_the_mode():
    traced = trace(Net(lambda net, x: F.rrelu(x, training=net.training)))
    assert torch.equal(traced.eval()(X), F.rrelu(X, training=False))
    assert not torch.equal(traced.train()(X), traced(X))


class WithBuffers(nn.Module):
    """Picks channels by a buffer that is not saved, and adds a tensor made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([2, 0, 1]), persistent=False)

    def forward(self, x):
        return x[:, self.order] + torch.arange(8.0)


def test_buffers_and_constants_leave_neither_the_model_nor_its_state_changed():
    model = WithBuffers()
    attributes = set(vars(model))
    traced = trace(model)
    assert torch.equal(traced(X), model(X))
    assert set(vars(model)) == attributes
    assert traced.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("function", [trace, conv_bn_pairs])
def test_a_model_that_depends_on_values_is_refused_by_name(function):
    model = Net(lambda net, x: net.conv(x) if x.sum() > 0 else x).train()
    with pytest.raises(TracingError, match="Net can't be followed"):
        function(model)
    assert model.training


def test_a_batch_norm_declared_before_its_convolution_is_found():
    assert conv_bn_pairs(Net(lambda net, x: net.bn(net.conv(x)))) == [("conv", "bn")]


def test_neighbours_by_declaration_that_do_not_feed_each_other_are_no_pair():
    other = {"conv2": nn.Conv2d(3, 3, 1), "bn2": nn.BatchNorm2d(3)}
    crossed = Net(lambda net, x: net.bn(net.conv2(net.bn2(net.conv(x)))), **other)
    assert conv_bn_pairs(crossed) == [("conv", "bn2"), ("conv2", "bn")]


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.bn(net.conv(x).relu()),
        lambda net, x: (net.bn(h), h)[0] + h if (h := net.conv(x)) is not None else x,
        lambda net, x: (net.bn(h := net.conv(x)), h),
        lambda net, x: net.bn(net.conv(net.conv(x))),
        lambda net, x: net.bn(net.conv(x)) + net.conv(x + 1),
        lambda net, x: net.bn(net.bn(net.conv(x))),
        lambda net, x: net.conv(net.bn(x)),
        lambda net, x: net.bn(net.conv(x) + x),
    ],
    ids=[
        "relu between",
        "convolution added elsewhere",
        "convolution returned too",
        "convolution called twice in a row",
        "convolution shared by branches",
        "batch norm called twice",
        "batch norm first",
        "addition between",
    ],
)
def test_other_constellations_are_no_pair(forward):
    assert conv_bn_pairs(Net(forward)) == []


def test_a_batch_norm_without_running_statistics_is_no_pair():
    model = Net(lambda net, x: net.own(net.conv(x)))
    model.own = nn.BatchNorm2d(3, track_running_stats=False)
    assert conv_bn_pairs(model) == []


def test_pairs_stay_pairs_when_the_model_is_prepared(small_net, images):
    from micronet import registry

    prepared = registry.create("quantizer", "iao").prepare(small_net, (images,))
    assert conv_bn_pairs(prepared) == conv_bn_pairs(small_net)
    assert conv_bn_pairs(prepared) == [("stem", "stem_bn"), ("body", "body_bn")]
