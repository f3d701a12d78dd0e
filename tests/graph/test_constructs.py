"""What users' models are written like: followed, quantized, folded and deployed as they are."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from micronet.graph import SpecializationError, graphs, trace
from micronet.quantization import convert, fake_quantizers
from micronet.quantization.layers import quantized_layers
from micronet.registry import create

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Modules, and a forward of the test's."""

    def __init__(self, forward, **modules) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


class BNSilu(nn.BatchNorm2d):
    """A batch norm with an activation, as timm's."""

    def forward(self, x):
        return F.silu(super().forward(x))


class NormAct(nn.BatchNorm2d):
    """The same with the batch norm written out, and the activation a module."""

    def __init__(self, features):
        super().__init__(features)
        self.act = nn.ReLU()

    def forward(self, x):
        torch._assert(x.ndim == 4, f"expected 4D input (got {x.ndim}D input)")
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        x = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )
        return self.act(x)


class SamePadConv(nn.Conv2d):
    """Pads by the size of its input, as TensorFlow does."""

    def forward(self, x):
        height, width = x.shape[-2:]
        extent = self.weight.shape[-1]
        rows = max((-(-height // self.stride[0]) - 1) * self.stride[0] + extent - height, 0)
        columns = max((-(-width // self.stride[1]) - 1) * self.stride[1] + extent - width, 0)
        if rows > 0 or columns > 0:
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return F.conv2d(x, self.weight, self.bias, self.stride)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x.sigmoid()  # so that a lost backward shows


class OwnSwish(nn.Module):
    def forward(self, x):
        return Swish.apply(x)


class DropPath(nn.Module):
    """Random depth as a module of the user's."""

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.rand([x.shape[0], 1, 1, 1]).add(0.5).floor()


def conv(into=3, out=8, **options):
    return nn.Conv2d(into, out, 3, padding=1, **options)


def settled(model):
    """With batch-norm statistics of some data."""
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(X.shape))
    return model.eval()


def fused(model):
    return create("fuser", "bn").fuse(model, (X,)).eval()


def prepared(model, **options):
    quantizer = create("quantizer", "iao", **options)
    return quantizer.prepare(model, (X,))


def difference(model, other, x=X):
    return float((model(x) - other(x)).abs().max() / model(x).abs().max())


NETS = {
    "batch norm with silu": lambda: nn.Sequential(conv(), BNSilu(8)),
    "batch norm written out": lambda: nn.Sequential(conv(), NormAct(8), conv(8), NormAct(8)),
    "relu between": lambda: nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(8)),
    "gelu between": lambda: nn.Sequential(conv(), nn.GELU(), nn.BatchNorm2d(8)),
    "dropout between": lambda: nn.Sequential(conv(), nn.Dropout(), nn.BatchNorm2d(8)),
    "identity between": lambda: nn.Sequential(conv(), nn.Identity(), nn.BatchNorm2d(8)),
    "pooling between": lambda: nn.Sequential(conv(), nn.MaxPool2d(2), nn.BatchNorm2d(8)),
    "in place, result unread": lambda: Net(_reads_what_it_changed, c=conv(), h=conv(8)),
    "relu_ before a shortcut": lambda: Net(_shortcut_of_changed, c=conv(), h=conv(8, 8)),
    "module in place, result unread": lambda: Net(
        _module_changes, c=conv(), act=nn.ReLU(inplace=True), h=conv(8)
    ),
    "addition in place": lambda: Net(_adds_in_place, c=conv(), h=conv(8, 8), bn=nn.BatchNorm2d(8)),
    "a view is changed": lambda: Net(_changes_a_view, c=conv(), h=conv(8)),
    "item assignment": lambda: Net(_assigns, c=conv(), h=conv(8)),
    "list of chunks": lambda: Net(_chunks, c=conv(), a=conv(4, 4), h=conv(8)),
    "branch on a size": lambda: Net(_branches, c=conv(), h=conv(8)),
    "assert on a size": lambda: Net(_asserts, c=conv()),
    "unpacked sizes": lambda: Net(_unpacks, c=conv(), h=conv(8)),
    "loop over parts": lambda: Net(_loops, c=conv(1), h=conv(24)),
    "same padding": lambda: nn.Sequential(SamePadConv(3, 8, 3, stride=2), nn.BatchNorm2d(8)),
    "numbers of sizes": lambda: Net(_computes_with_sizes, c=conv(), h=conv(8)),
    "dictionary inside": lambda: Net(_passes_a_dictionary, c=conv(), h=conv(8)),
    "custom autograd function": lambda: nn.Sequential(conv(), OwnSwish(), conv(8)),
    "drop path": lambda: Net(_drops_path, c=conv(), d=DropPath(), h=conv(8, 8)),
}


def _reads_what_it_changed(net, x):
    y = net.c(x)
    F.relu(y, inplace=True)
    return net.h(y)


def _shortcut_of_changed(net, x):
    y = net.c(x)
    z = net.h(y.relu_())
    return z + y


def _module_changes(net, x):
    y = net.c(x)
    net.act(y)
    return net.h(y)


def _adds_in_place(net, x):
    y = net.bn(net.c(x))
    same = y
    y += net.h(y)
    return same * 2


def _changes_a_view(net, x):
    y = net.c(x)
    y[:, :4].relu_()
    return net.h(y)


def _assigns(net, x):
    y = net.c(x)
    y[:, 0] = 0
    return net.h(y)


def _chunks(net, x):
    a, b = list(net.c(x).chunk(2, 1))
    return net.h(torch.cat([net.a(a), b], 1))


def _branches(net, x):
    y = net.c(x)
    if x.shape[-1] % 2:
        y = y * 0
    return net.h(y)


def _asserts(net, x):
    assert x.shape[1] == 3, f"{x.shape[1]} channels"
    assert isinstance(x, torch.Tensor)
    return net.c(x)


def _unpacks(net, x):
    y = net.c(x)
    b, c, h, w = y.shape
    return net.h(y.view(b, c, h // 2, 2, w // 2, 2).mean((3, 5)))


def _loops(net, x):
    parts = [net.c(part) for part in x.split(1, dim=1)]
    return net.h(torch.cat(parts, 1))


def _computes_with_sizes(net, x):
    y = net.c(x)
    side = int(y.shape[-1] ** 0.5)
    y = F.interpolate(y, size=(y.shape[-2] * 2, side))
    steps = torch.arange(y.shape[-1], dtype=y.dtype, device=y.device)
    return net.h(y + steps / y.size(-1))


def _passes_a_dictionary(net, x):
    features = {"low": net.c(x), "none": None}
    features["high"] = F.relu(features["low"])
    total = sum(value for key, value in features.items() if value is not None)
    return net.h(total)


def _drops_path(net, x):
    y = net.c(x)
    return y + net.d(net.h(y))


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(0)
    return settled(NETS[request.param]())


def test_a_trace_computes_the_same_for_any_batch(net):
    traced = trace(net, (X,))
    for batch in (X, X[:1], torch.cat([X, X])):
        assert difference(net, traced, batch) < 1e-6


def test_folding_keeps_what_it_computes(net):
    assert difference(net, fused(net)) < 1e-4


def test_quantizers_that_are_off_keep_what_it_computes(net):
    ready = prepared(net).eval()
    assert list(fake_quantizers(ready))
    for _, quantizer in fake_quantizers(ready):
        quantizer.mode = "off"
    assert difference(net, ready) < 1e-5


def test_the_engine_computes_what_was_simulated(net, tmp_path):
    quantizer = create("quantizer", "iao")
    ready = quantizer.prepare(net, (X,))
    quantizer.calibrate(ready, [X])
    unfused = ready.eval()(X)
    model = convert(fused(ready))
    backend = create("deploy_backend", "onnxruntime")
    runner = backend.load(backend.export(model, (X,), tmp_path / "engine"))
    batch = torch.cat([X, X])
    expected, found = model(batch), torch.from_numpy(runner(batch.numpy()))
    assert _snr(expected, found) > 25
    assert _snr(net(X), model(X)) > _snr(net(X), unfused) - 1


def _snr(expected, found):
    noise = (expected - found).pow(2).mean().clamp_min(1e-20)
    return float(10 * torch.log10(expected.pow(2).mean() / noise))


def test_it_is_followed_whole(net):
    assert [name for name, _ in graphs(prepared(net))] == [""]


def test_batch_norms_with_something_behind_fold_into_the_convolution():
    for norm in (BNSilu(8), NormAct(8)):
        model = settled(nn.Sequential(conv(), norm))
        folded = fused(model)
        assert difference(model, folded) < 1e-5
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        ready = fused(prepared(model))
        assert not any(isinstance(m, nn.BatchNorm2d) for m in ready.modules())


def test_same_padding_is_quantized_as_one_graph_with_its_own_layer():
    ready = prepared(settled(NETS["same padding"]()))
    assert [name for name, _ in quantized_layers(ready)] == ["0"]
    assert ready(torch.randn(7, 3, 16, 16)).shape[0] == 7


def test_a_way_that_another_size_would_change_is_refused_in_words():
    traced = trace(NETS["branch on a size"]().eval(), (X,))
    with pytest.raises(
        SpecializationError, match=r"_branches asks at test_constructs.py:\d+ was 0"
    ):
        traced(torch.randn(2, 3, 16, 17))


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
    assert _snr(model(X), ready.eval()(X)) > 20
    assert np.isfinite(fused(model)(X).detach().numpy()).all()


def test_hooks_of_the_users_go_on_being_called():
    model, features = nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv(8)), []
    model[0].register_forward_hook(lambda _m, _i, output: features.append(output))
    ready = prepared(model)
    features.clear()
    ready(X)
    assert [type(feature) for feature in features] == [torch.Tensor]
