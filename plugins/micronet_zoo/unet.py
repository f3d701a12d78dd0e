"""U-Net: an encoder, and a decoder that sees the encoder's features of the same size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d


class ConvBNReLU(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class DoubleConv(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            ConvBNReLU(in_channels, out_channels), ConvBNReLU(out_channels, out_channels)
        )


class UNetModule(nn.Module):
    """float32 [batch, 3, height, width] -> logits [batch, num_classes, height, width].

    Args:
        num_classes: Classes of a pixel.
        width: Channels at half of the size; each of three further halvings doubles them.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        channels = [width << level for level in range(4)]
        self.stem = ConvBNReLU(3, width, stride=2)
        self.encoder = nn.ModuleList(
            DoubleConv(before, after)
            for before, after in zip([width, *channels[:-1]], channels, strict=True)
        )
        self.decoder = nn.ModuleList(
            DoubleConv(below + beside, beside)
            for below, beside in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        x, features = self.stem(images), []
        for level, stage in enumerate(self.encoder):
            x = stage(x if level == 0 else max_pool2d(x, 2))
            features.append(x)
        for stage, beside in zip(self.decoder, features[-2::-1], strict=True):
            x = interpolate(x, beside.shape[-2:], mode="bilinear", align_corners=False)
            x = stage(torch.cat([beside, x], 1))
        logits: Tensor = self.classifier(x)
        return interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
