"""Small networks with a construct each, as users of pruners report them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)


def conv(inputs, outputs, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


class Around(nn.Module):
    """A stem of 16 channels, the construct, and a head behind a convolution."""

    def __init__(self, construct, width=16) -> None:
        super().__init__()
        self.stem, self.norm = conv(3, 16), nn.BatchNorm2d(16)
        self.body, self.last, self.head = construct, conv(width, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = self.body(self.norm(self.stem(x)).relu())
        return self.head(self.last(x).relu().mean((2, 3)))


class Forward(nn.Module):
    """Modules, and a forward of the test's."""

    def __init__(self, forward, **modules) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


class StandardisedConv(nn.Conv2d):
    """Weight standardisation over each filter, with gains, as timm's."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x):
        flat, gain = self.weight.reshape(1, self.out_channels, -1), (self.gain * 0.3).view(-1)
        weight = F.batch_norm(flat, None, None, weight=gain, training=True, momentum=0.0)
        return self._conv_forward(x, weight.reshape_as(self.weight), self.bias)


class StandardisedTogether(nn.Conv2d):
    """A weight that is divided by the deviation of all its numbers."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / (3 * self.weight.std()), self.bias)


class Buffer(nn.Module):
    def __init__(self, *shape) -> None:
        super().__init__()
        self.register_buffer("table", torch.rand(shape) + 0.5)

    def forward(self, x):
        return x * self.table


class Heads(nn.Module):
    """Attention whose code keeps the width of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 4, 6
        self.qkv, self.out = nn.Linear(16, 72), nn.Linear(24, 16)

    def forward(self, x):
        images, _, height, width = x.shape
        x = self.qkv(x.flatten(2).transpose(1, 2))
        x = x.reshape(images, height * width, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        q, k, v = x.unbind(0)
        y = ((0.3 * q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2)
        y = self.out(y.reshape(images, height * width, self.heads * self.width))
        return y.transpose(1, 2).reshape(images, -1, height, width)


class ScaledHeads(nn.Module):
    """Attention that torch scales by the width of its queries."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys = nn.Linear(16, 24), nn.Linear(16, 24)
        self.values, self.out = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        layers = self.queries, self.keys, self.values
        parts = (each(tokens).unflatten(2, (4, -1)).transpose(1, 2) for each in layers)
        y = self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        return y.transpose(1, 2).unflatten(2, x.shape[2:])


class WidthsOfEachOther(nn.Module):
    """Attention whose code takes the width of its heads from that of its inputs."""

    def __init__(self, heads=4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out, self.back = nn.Linear(16, 48), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        images, count, width = tokens.shape
        parts = self.qkv(tokens).reshape(images, count, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        y = ((0.3 * q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2)
        y = self.back(self.out(y.reshape(images, count, width)).relu()).transpose(1, 2)
        return y.reshape(images, x.size(1), *x.shape[2:])


class AnyWidth(nn.Module):
    """Attention whose code fixes the number of heads alone, and learns a mix of them."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.mix, self.out = nn.Linear(16, 72), nn.Linear(4, 4), nn.Linear(24, 16)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (
            self.qkv(tokens)
            .reshape(len(x), -1, 3, 4, self.qkv.out_features // 12)
            .permute(2, 0, 3, 1, 4)
        )
        mixed = self.mix((0.3 * q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.out((mixed.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return y.transpose(1, 2).unflatten(2, x.shape[2:])


class JoinedBias(nn.Module):
    """A bias that is put together from parameters, as BEiT's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 24, 1, bias=False)
        self.first, self.last = nn.Parameter(torch.rand(12)), nn.Parameter(torch.rand(12))

    def forward(self, x):
        return F.conv2d(x, self.conv.weight, torch.cat([self.first, self.last]))


class LevitHeads(nn.Module):
    """Keys and values of unequal width, split by attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.sizes = 4, [4, 4, 8]
        self.qkv, self.out = nn.Conv2d(16, 64, 1), nn.Conv2d(32, 16, 1)

    def forward(self, x):
        images, _, height, width = x.shape
        x = self.qkv(x).view(images, self.heads, -1, height * width)
        q, k, v = x.split(self.sizes, dim=2)
        weights = (0.3 * q.transpose(-2, -1) @ k).softmax(-1)
        return self.out((v @ weights.transpose(-2, -1)).reshape(images, -1, height, width))


class OverTokens(nn.Module):
    """A mixer's block: linear layers over the tokens, then over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 64))
        self.channels = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x):
        images, _, height, width = x.shape
        x = x.flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        return (x + self.channels(x)).transpose(1, 2).reshape(images, -1, height, width)


class SplitAttention(nn.Module):
    """Two parts of the channels, weighed by a softmax over the parts (ResNeSt)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(16, 32, groups=2), nn.BatchNorm2d(32)
        self.down, self.up = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 32, 1)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        images, channels, height, width = x.shape
        x = x.reshape(images, 2, channels // 2, height, width)
        gates = self.up(self.down(x.sum(1).mean((2, 3), keepdim=True)).relu())
        gates = gates.view(images, 1, 2, -1).transpose(1, 2).softmax(1)
        return (x * gates.reshape(images, 2, channels // 2, 1, 1)).sum(1)


class CoordinateAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.norm = nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
        self.rows, self.columns = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 1)

    def forward(self, x):
        height, width = x.shape[2:]
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        y = F.hardswish(self.norm(self.both(torch.cat([rows, columns], 2))))
        rows, columns = y.split([height, width], dim=2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.transpose(2, 3)).sigmoid()


class C2f(nn.Module):
    """Halves with unequal readers, one of them behind an attention; the code keeps their width."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.first, self.last = conv(16, 32, 1), conv(64, 16, 1)
        self.one, self.two, self.attention = conv(16, 16), conv(16, 16), CoordinateAttention()

    def forward(self, x):
        parts = list(self.first(x).split((self.width, self.width), 1))
        parts.append(self.attention(self.one(parts[-1]).relu()))
        parts.append(parts[-1] + self.two(parts[-1]).relu())
        return self.last(torch.cat(parts, 1))


class Mapped(nn.Module):
    """Conv1d to linear, and a linear layer seen as a map by a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.line = conv(3, 16), nn.Conv1d(16, 12, 3)
        self.wide, self.up = nn.Linear(12 * 6, 12 * 16), nn.ConvTranspose2d(12, 8, 4, 2, 1)
        self.head = conv(8, 3)

    def forward(self, x):
        x = F.adaptive_avg_pool1d(self.line(self.stem(x).relu().mean(2)).relu(), 6)
        return self.head(self.up(self.wide(x.flatten(1)).unflatten(1, (-1, 4, 4))).relu())


class Recurrent(nn.Module):
    def __init__(self, kind) -> None:
        super().__init__()
        self.stem, self.last = conv(3, 16), conv(16, 16)
        self.recurrent, self.head = kind(16, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x):
        x = self.last(self.stem(x).relu()).relu().mean(2).transpose(1, 2)
        return self.head(self.recurrent(x)[0][:, -1])


class Weight(nn.Module):
    """An einsum with a weight that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 20) / 4)

    def forward(self, x):
        return torch.einsum("bchw,cd->bdhw", x, self.weight)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)


class ScaledByWidth(WidthsOfEachOther):
    """The same, which scales by the width that it takes from its inputs (torchvision's Swin)."""

    def __init__(self) -> None:
        super().__init__(heads=2)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        images, count, width = tokens.shape
        parts = self.qkv(tokens).reshape(images, count, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        q = q * (width // self.heads) ** -0.5
        y = ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2)
        y = self.back(self.out(y.reshape(images, count, width)).relu()).transpose(1, 2)
        return y.reshape(images, x.size(1), *x.shape[2:])


class Gains(nn.Module):
    """A module of one's own that holds a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x):
        return x * self.weight.view(1, -1, 1, 1)


class Block(nn.Sequential):
    def __init__(self, inputs, outputs, kernel) -> None:
        super().__init__(conv(inputs, outputs, kernel), nn.BatchNorm2d(outputs), nn.ReLU())


class Chunks(nn.Module):
    """Halves of a chunk, of which one is read once more, between blocks of one kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = Block(16, 32, 1), Block(16, 16, 3), Block(16, 16, 3)
        self.last = Block(48, 16, 1)

    def forward(self, x):
        one, other = self.first(x).chunk(2, 1)
        return self.last(torch.cat([one, other, other + self.two(self.one(other))], 1))


def gated(module, x):
    one, other = module.conv(x).chunk(2, 1)
    return one * other.sigmoid()


def neighbours(module, x):
    gates = module.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()
    return x * gates.transpose(1, 2).unsqueeze(-1)


def after(layer):
    return Around(nn.Sequential(conv(16, 16), layer))


_TOKENS = Forward(
    lambda m, x: m.b(m.a(x.permute(0, 2, 3, 1)).relu()).permute(0, 3, 1, 2),
    a=nn.Linear(16, 32),
    b=nn.Linear(32, 16),
)

PRUNED = {
    "instance norm": lambda: after(nn.InstanceNorm2d(16)),
    "instance norm, affine": lambda: after(nn.InstanceNorm2d(16, affine=True)),
    "instance norm, statistics": lambda: after(nn.InstanceNorm2d(16, track_running_stats=True)),
    "batch norm without gammas": lambda: after(nn.BatchNorm2d(16, affine=False)),
    "linear on transposed tokens": lambda: Around(_TOKENS),
    "weight norm": lambda: Around(nn.utils.parametrizations.weight_norm(conv(16, 16))),
    "spectral norm": lambda: Around(nn.utils.parametrizations.spectral_norm(conv(16, 16))),
    "gated halves": lambda: Around(Forward(gated, conv=conv(16, 32))),
    "GLU": lambda: Around(nn.Sequential(conv(16, 32), nn.GLU(1))),
    "split attention": lambda: Around(SplitAttention()),
    "coordinate attention": lambda: Around(CoordinateAttention()),
    "C2f": lambda: Around(C2f()),
    "gains of a module of one's own": lambda: after(Gains()),
    "scale in a buffer": lambda: after(Buffer(1, 16, 1, 1)),
    "positions in a buffer": lambda: after(Buffer(1, 16, 8, 8)),
    "width of heads in an attribute": lambda: Around(Heads()),
    "widths taken from each other": lambda: Around(WidthsOfEachOther()),
    "bias in two parameters": lambda: Around(JoinedBias(), width=24),
    "sizes of a split in a list": lambda: Around(LevitHeads()),
    "einsum with a weight": lambda: Around(Weight(), width=20),
    "depthwise with a multiplier": lambda: Around(conv(16, 48, groups=16), width=48),
    "pixel shuffle": lambda: Around(nn.Sequential(conv(16, 64), nn.PixelShuffle(2))),
    "convolution, linear and map": Mapped,
}
"""Constructs that lose channels, whatever lies around them."""

WHOLE = {
    "weight standardised over all filters": (
        lambda: Around(StandardisedTogether(16, 16, 3, padding=1)),
        dict.fromkeys(
            ["stem", "body"], "'body' computes its weight from all numbers of it together"
        ),
    ),
    "mix of heads": (
        lambda: Around(AnyWidth()),
        {"body.mix": "it gives a number for each head of an attention"},
    ),
    "convolution over channels": (
        lambda: Around(Forward(neighbours, conv=nn.Conv1d(1, 1, 3, padding=1))),
        {"stem": "its channels lie along an axis that 'body.conv' mixes"},
    ),
    "linear over tokens": (
        lambda: Around(OverTokens()),
        {"body.tokens.0": "it works along another axis than its channels"},
    ),
    "scale by the width of heads": (
        lambda: Around(ScaledHeads()),
        dict.fromkeys(["body.queries", "body.keys"], "their number scales an attention"),
    ),
    "scale by a width": (
        lambda: Around(ScaledByWidth()),
        {
            "body.qkv": "the code of ScaledByWidth computes with their number",
            "stem": "the code takes their number for that of 'body.qkv', and there the code of "
            "ScaledByWidth computes with their number",
        },
    ),
    "torch's attention": (
        lambda: Around(Attention()),
        {"stem": "it feeds a MultiheadAttention, which fixes its number of channels"},
    ),
    "LSTM": (
        lambda: Recurrent(nn.LSTM),
        {"last": "it feeds LSTM 'recurrent', which fixes its number of channels"},
    ),
    "GRU": (
        lambda: Recurrent(nn.GRU),
        {"last": "it feeds a GRU, which fixes its number of channels"},
    ),
}
"""Constructs beside which a layer stays whole, with the reason that is given."""
