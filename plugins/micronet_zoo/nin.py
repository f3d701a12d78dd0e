"""Network in network: 5x5, 5x5 and 3x3 convolutions, each followed by two 1x1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    """Convolution that keeps the image's size, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class NINModule(nn.Module):
    """float32 [batch, 3, 32, 32] -> logits [batch, num_classes]."""

    def __init__(self, cfg: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            ConvBNReLU(3, cfg[0], 5),
            ConvBNReLU(cfg[0], cfg[1], 1),
            ConvBNReLU(cfg[1], cfg[2], 1),
            nn.MaxPool2d(3, stride=2, padding=1),
            ConvBNReLU(cfg[2], cfg[3], 5),
            ConvBNReLU(cfg[3], cfg[4], 1),
            ConvBNReLU(cfg[4], cfg[5], 1),
            nn.MaxPool2d(3, stride=2, padding=1),
            ConvBNReLU(cfg[5], cfg[6], 3),
            ConvBNReLU(cfg[6], cfg[7], 1),
            ConvBNReLU(cfg[7], num_classes, 1),
            nn.AvgPool2d(8, stride=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out.flatten(1)
