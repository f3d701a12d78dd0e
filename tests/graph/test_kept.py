"""What a followed model keeps of its author's: attributes, modes, hooks, and parts left alone."""

import copy
import dataclasses
import pickle
from collections import OrderedDict
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import pytest
import torch
from constructs import NETS, OwnSwish, X, conv, fused, prepared, settled, snr
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from micronet.errors import MicronetError, PruningError
from micronet.graph import SpecializationError, TracingError, graphs, trace
from micronet.quantization import fake_quantizers
from micronet.registry import create


class WithFlags(nn.Module):
    """Arguments with defaults, attributes, a method, and a batch norm that never trains."""

    def __init__(self):
        super().__init__()
        self.c, self.bn = conv(), nn.BatchNorm2d(8)
        self.names = ["a", "b"]

    def forward(self, x, targets=None, *, scale=1.0, verbose: bool = False):
        y = self.bn(self.c(x)) * scale
        return y if targets is None else (y, targets)

    def train(self, mode=True):
        super().train(mode)
        self.bn.eval()
        return self

    def label(self, index):
        return self.names[index]


def test_arguments_with_defaults_keep_them_and_refuse_others():
    model = WithFlags().eval()
    ready = prepared(model)
    for _, quantizer in fake_quantizers(ready):
        quantizer.mode = "off"
    assert torch.equal(ready(X), model(X))
    assert torch.equal(ready(X, None), model(X))
    with pytest.raises(SpecializationError, match="argument 'targets' was None"):
        ready(X, torch.zeros(4))


def test_a_models_own_class_attributes_and_methods_are_still_there():
    ready = prepared(WithFlags())
    for model in (ready, copy.deepcopy(ready), fused(ready)):
        assert isinstance(model, WithFlags)
        assert model.label(1) == "b"


def test_a_batch_norm_that_the_model_keeps_in_eval_mode_does_not_train():
    ready = prepared(WithFlags()).train()
    before = ready.bn.running_mean.clone()
    ready(X)
    assert torch.equal(ready.bn.running_mean, before)


def test_a_followed_model_can_be_pickled():
    model = trace(WithFlags().eval(), (X,))
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), model(X))


def test_a_custom_backward_is_still_used():
    model = nn.Sequential(conv(), OwnSwish(), conv(8))
    gradients = []
    for each in (model, trace(model, (X,))):
        each.zero_grad()
        each(X).sum().backward()
        gradients.append(model[0].weight.grad.clone())
    assert torch.equal(*gradients)


def test_random_depth_in_a_module_is_still_random_in_training():
    ready = prepared(NETS["drop path"]())
    ready(X)
    outputs = [ready.train()(X) for _ in range(8)]
    assert any(not torch.allclose(outputs[0], other, atol=1e-2) for other in outputs)


class AttributeDict(OrderedDict):
    """Its items are attributes too, as in the outputs of transformers."""

    def __getattr__(self, name):
        return self[name]


@dataclasses.dataclass
class Fields:
    logits: torch.Tensor
    features: torch.Tensor


class Box:
    """Of no kind that anybody knows."""

    def __init__(self, logits, features):
        self.logits, self.features = logits, features


class Giving(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.c, self.head, self.output = conv(), nn.Linear(8, 4), output

    def forward(self, x):
        features = self.c(x)
        return self.output(logits=self.head(features.mean((2, 3))), features=features)


class Pair(NamedTuple):
    logits: torch.Tensor
    features: torch.Tensor


OUTPUTS = [AttributeDict, Fields, Box, Pair]


@pytest.mark.filterwarnings("ignore:Giving can't be followed")
@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.__name__)
def test_outputs_are_of_the_authors_own_class(output):
    model = Giving(output)
    quantizer = create("quantizer", "iao")
    ready = quantizer.prepare(model, (X,))
    quantizer.calibrate(ready, [X])
    expected, found = model(X), ready.eval()(X)
    assert type(found) is output
    assert snr(expected.logits, found.logits) > 30
    assert snr(expected.features, found.features) > 30


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.__name__)
def test_channels_that_lie_in_an_output_of_any_class_stay(output):
    with pytest.raises(PruningError, match="c, head: it gives the model's outputs"):
        create("pruner", "normal", percent=0.3).prune(Giving(output).eval(), (X,))


def test_a_model_that_gives_no_tensor_is_refused():
    with pytest.raises(MicronetError, match="Giving gives None on the example inputs"):
        prepared(Giving(lambda **_: None))
    with pytest.raises(MicronetError, match="Giving gives None on the example inputs"):
        create("pruner", "normal", percent=0.3).prune(Giving(lambda **_: None), (X,))


class InAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.others = conv(), [conv(8)]

    def forward(self, x):
        return self.others[0](self.c(x))


def test_a_layer_that_no_module_holds_is_told():
    with pytest.warns(UserWarning, match="a Conv2d that is none of its submodules, .*ModuleList"):
        prepared(InAList())


@pytest.mark.parametrize("quantizer", ["iao", "dorefa", "wbwtab"])
def test_a_model_prepared_in_eval_mode_changes_no_range_until_it_trains(quantizer):
    technique = create("quantizer", quantizer)
    model = nn.Sequential(conv(), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 4)).eval()
    ready = technique.prepare(model, (X,))
    if technique.needs_data:
        technique.calibrate(ready, [X])
    assert not any(module.training for module in ready.modules())
    before = ready(X)
    ready(100 * X)
    assert torch.equal(ready(X), before)
    assert all(module.training for module in ready.train().modules())


class WithSwitch(nn.Module):
    """Keyword-only and numpy arguments, any number of inputs, and an attribute that it reads."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.tau = conv(), conv(), 1.0
        self.half = np.float32(0.5)

    def forward(self, *xs, normalize=True):
        first, *others = xs
        y = self.a(first) / self.tau + sum(self.b(x) for x in others)
        return F.normalize(y * self.half, dim=1) if normalize else y


def test_keyword_only_arguments_and_any_number_of_inputs_are_kept():
    model = WithSwitch().eval()
    ready = create("quantizer", "iao").prepare(model, (X, X))
    assert [name for name, _ in graphs(ready)] == [""]
    for _, quantizer in fake_quantizers(ready):
        quantizer.mode = "off"
    assert torch.allclose(ready(X, X, normalize=True), model(X, X), atol=1e-6)
    with pytest.raises(SpecializationError, match="argument 'normalize' was True; now it is False"):
        ready(X, X, normalize=False)


def test_a_change_of_an_attribute_that_a_graph_may_have_read_is_told():
    ready = create("quantizer", "iao").prepare(WithSwitch().eval(), (X, X))
    with pytest.warns(UserWarning, match="was followed with 'tau' at 1.0; where it reads that"):
        ready.tau = 4.0


def test_a_tensor_for_an_argument_that_was_left_out_is_told_in_a_line():
    with pytest.raises(SpecializationError, match=r"was None; now it is a tensor \[4\], so"):
        prepared(WithFlags())(X, torch.zeros(4))


class CompletedAtFirst(nn.Module):
    """Installs a hook as it is called for the first time, as models of transformers do."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(), conv(8, 8), conv(8)
        self.ready, self.features = False, []

    def forward(self, x):
        if not self.ready:
            self.b.register_forward_hook(lambda _m, _i, output: self.features.append(output))
            self.ready = True
        self.features.clear()
        self.b(self.a(x))
        (features,) = self.features
        return self.c(features)


@pytest.mark.filterwarnings("ignore:CompletedAtFirst can't be followed")
@pytest.mark.parametrize("look", [prepared, fused, lambda model: trace(model, (X,))])
def test_a_model_that_completes_itself_at_its_first_call_does_so_once(look):
    model = CompletedAtFirst().eval()
    with suppress(TracingError):
        look(model)
    model(X)
    assert len(model.b._forward_hooks) == 1


def test_a_lazy_layer_is_refused_until_it_has_run():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU())
    with pytest.raises(MicronetError, match=r"'0' of the model is a LazyConv2d .* call the model"):
        prepared(model)
    model(X)
    assert fake_quantizers(prepared(model))


class WithoutGradients(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 3), conv(3, 3)

    def forward(self, x):
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)


@pytest.mark.filterwarnings("ignore:WithoutGradients can't be followed")
def test_a_part_without_gradients_stays_without():
    ready = prepared(WithoutGradients())
    ready(X).sum().backward()
    assert ready.a.weight.grad is None
    assert ready.b.weight.grad is not None


class Counting(nn.Module):
    """Changes itself as it runs."""

    def __init__(self):
        super().__init__()
        self.c, self.calls = conv(), 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.seen.add_(1)
        return self.c(x)


@pytest.mark.filterwarnings("ignore:Counting can't be followed")
def test_a_model_that_changes_itself_goes_on_doing_so():
    model = Counting()
    ready = prepared(model)
    before, seen = ready.calls, float(ready.seen)
    ready(X)
    assert (ready.calls, float(ready.seen)) == (before + 1, seen + 1)


class CountingInAView(nn.Module):
    """Changes a buffer in training, through a view of it."""

    def __init__(self):
        super().__init__()
        self.c = conv()
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x):
        if self.training:
            self.seen[0:1].add_(1)
        return self.c(x)


@pytest.mark.filterwarnings("ignore:CountingInAView can't be followed")
def test_a_buffer_that_training_changes_stays_in_evaluation():
    ready = prepared(CountingInAView()).train()
    ready(X)
    before = ready.seen.tolist()
    ready.eval()(X)
    assert ready.seen.tolist() == before != [0, 0]
    ready.train()(X)
    assert ready.seen.tolist() != before


class Detector(nn.Module):
    """A backbone that can be followed, in a model whose way depends on values."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4))
        self.head = nn.Sequential(conv(4, 4), nn.BatchNorm2d(4))

    def forward(self, x):
        y = self.backbone(x)
        boxes = y[y[:, 0].amax((1, 2)) > y.mean()]
        return self.head(boxes) if len(boxes) else y


def test_the_largest_parts_of_a_model_that_cannot_be_followed_are_graphs():
    model = settled(Detector())
    with pytest.warns(UserWarning, match="Graphs of their own have 'backbone', 'head'"):
        ready = prepared(model)
    assert [name for name, _ in graphs(ready)] == ["backbone", "head"]
    folded = fused(ready)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    create("quantizer", "iao").calibrate(ready, [X])
    assert snr(model(X), ready.eval()(X)) > 20
    assert np.isfinite(fused(model)(X).detach().numpy()).all()


def test_hooks_of_the_users_go_on_being_called():
    model, features = nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv(8)), []
    model[0].register_forward_hook(lambda _m, _i, output: features.append(output))
    ready = prepared(model)
    features.clear()
    ready(X)
    assert [type(feature) for feature in features] == [torch.Tensor]
