"""What users' models are written like: small networks with one construct each."""

import warnings

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

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


def snr(expected, found):
    noise = (expected - found).pow(2).mean().clamp_min(1e-20)
    return float(10 * torch.log10(expected.pow(2).mean() / noise))


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
    "a call named as a method of modules": lambda: Net(_converts, c=conv(), h=conv(8)),
    "called by names": lambda: Net(_calls_by_names, c=conv(), bn=nn.BatchNorm2d(8), h=conv(8)),
    "scripted activation": lambda: Net(_calls_a_script, c=conv(), h=conv(8)),
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


def _converts(net, x):
    return net.h(net.c(x).double().sigmoid().to(x.dtype))


def _calls_by_names(net, x):
    y = net.bn(input=net.c(input=x))
    return net.h(input=F.avg_pool2d(input=y, kernel_size=2))


with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # torch's: users' models still have them

    @torch.jit.script
    def mish(x):
        return x * torch.tanh(F.softplus(x))


def _calls_a_script(net, x):
    return net.h(mish(net.c(x)))


def _drops_path(net, x):
    y = net.c(x)
    return y + net.d(net.h(y))
