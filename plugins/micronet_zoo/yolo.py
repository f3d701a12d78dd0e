"""A small detector of the YOLO family: anchor-free, CSP blocks, three strides, decoupled heads.

The blocks and the feature pyramid are those of YOLOv8 (Jocher et al. 2023); a box's sides are
regressed directly, as FCOS does (Tian et al. 2019).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

STRIDES = (8, 16, 32)
"""Pixels between the cells of each output map."""
SIDES = 4
"""Channels of an output before those of the classes: left, top, right, bottom."""
_PRIOR = 0.01
"""Probability of each class in each cell at the start (Lin et al. 2017)."""


class ConvBNSiLU(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, their input added or not."""

    def __init__(self, channels: int, *, add: bool) -> None:
        super().__init__()
        self.first = ConvBNSiLU(channels, channels, 3, 1)
        self.second = ConvBNSiLU(channels, channels, 3, 1)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return x + out if self.add else out


class C2f(nn.Module):
    """Half of the channels goes through a bottleneck; both halves and its output are merged."""

    def __init__(self, in_channels: int, out_channels: int, *, add: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.split = ConvBNSiLU(in_channels, 2 * half, 1, 1)
        self.bottleneck = Bottleneck(half, add=add)
        self.merge = ConvBNSiLU(3 * half, out_channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.split(x).chunk(2, 1)
        out: Tensor = self.merge(torch.cat([first, second, self.bottleneck(second)], 1))
        return out


class Head(nn.Module):
    """The outputs of one stride, from branches of their own for the box and for its class."""

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.box = nn.Sequential(
            ConvBNSiLU(in_channels, width, 3, 1), ConvBNSiLU(width, width, 3, 1)
        )
        self.sides = nn.Conv2d(width, SIDES, 1)
        self.label = nn.Sequential(
            ConvBNSiLU(in_channels, width, 3, 1), ConvBNSiLU(width, width, 3, 1)
        )
        self.logits = nn.Conv2d(width, num_classes, 1)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -math.log(1 / _PRIOR - 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.sides(self.box(x)), self.logits(self.label(x))], 1)


class YOLOModule(nn.Module):
    """float32 [batch, 3, height, width] -> a map [batch, 4 + num_classes, h, w] for each stride.

    The strides are 8, 16 and 32 pixels, which must divide height and width. In train and eval mode
    alike the maps are raw: `micronet_zoo.boxes` makes boxes of them, and a loss.

    Args:
        num_classes: Labels to tell apart, from 0.
        width: Channels of the stem; strides 4, 8, 16 and 32 have two, four, eight and eight
            times as many.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        w2, w4, w8 = 2 * width, 4 * width, 8 * width
        self.stem = nn.Sequential(ConvBNSiLU(3, width, 3, 2), ConvBNSiLU(width, w2, 3, 2))
        self.stage4 = C2f(w2, w2, add=True)
        self.stage8 = nn.Sequential(ConvBNSiLU(w2, w4, 3, 2), C2f(w4, w4, add=True))
        self.stage16 = nn.Sequential(ConvBNSiLU(w4, w8, 3, 2), C2f(w8, w8, add=True))
        self.stage32 = nn.Sequential(ConvBNSiLU(w8, w8, 3, 2), C2f(w8, w8, add=True))
        self.up16 = C2f(w8 + w8, w8, add=False)
        self.up8 = C2f(w8 + w4, w4, add=False)
        self.to16 = ConvBNSiLU(w4, w4, 3, 2)
        self.down16 = C2f(w4 + w8, w8, add=False)
        self.to32 = ConvBNSiLU(w8, w8, 3, 2)
        self.down32 = C2f(w8 + w8, w8, add=False)
        self.heads = nn.ModuleList(Head(inputs, w4, num_classes) for inputs in (w4, w8, w8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f8 = self.stage8(self.stage4(self.stem(x)))
        f16 = self.stage16(f8)
        f32 = self.stage32(f16)
        p16 = self.up16(torch.cat([interpolate(f32, scale_factor=2.0), f16], 1))
        p8 = self.up8(torch.cat([interpolate(p16, scale_factor=2.0), f8], 1))
        n16 = self.down16(torch.cat([self.to16(p8), p16], 1))
        n32 = self.down32(torch.cat([self.to32(n16), f32], 1))
        on8, on16, on32 = self.heads
        return on8(p8), on16(n16), on32(n32)
