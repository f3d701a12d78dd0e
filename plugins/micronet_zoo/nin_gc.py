"""Network in network with group convolutions; a channel shuffle before each lets groups mix."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

GROUPS = (1, 2, 2, 16, 4, 4, 32, 8)
"""Groups of the eight convolutions before the last."""

_KERNELS = (5, 1, 1, 3, 1, 1, 3, 1)
_POOL_BEFORE = (3, 6)


class ShuffleConvBNReLU(nn.Module):
    """Channel shuffle over `shuffle` groups, group convolution, batch norm, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, groups: int, shuffle: int
    ) -> None:
        super().__init__()
        self.shuffle = nn.ChannelShuffle(shuffle) if shuffle > 1 else nn.Identity()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(self.shuffle(x))))
        return out


class NINGCModule(nn.Module):
    """float32 [batch, 3, 32, 32] -> logits [batch, num_classes]."""

    def __init__(self, cfg: Sequence[int], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels, previous_groups = 3, 1
        for position, out_channels in enumerate(cfg):
            if position in _POOL_BEFORE:
                layers.append(nn.MaxPool2d(2))
            groups = GROUPS[position]
            layers.append(
                ShuffleConvBNReLU(
                    in_channels, out_channels, _KERNELS[position], groups, previous_groups
                )
            )
            in_channels, previous_groups = out_channels, groups
        layers += [ShuffleConvBNReLU(in_channels, num_classes, 1, 1, 1), nn.AvgPool2d(8, stride=1)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out.flatten(1)
