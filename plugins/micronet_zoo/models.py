"""The models' options."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from micronet.errors import OptionError
from micronet.options import option
from micronet.techniques import Model

if TYPE_CHECKING:
    from torch import nn


@attrs.frozen(kw_only=True)
class NIN(Model):
    """Network in network (Lin et al. 2014) for 3x32x32 images, with batch norms."""

    has_batch_norms = True

    num_classes: int = option(10, ge=1, most=10**6, doc="Classes to tell apart.")
    cfg: tuple[int, ...] = option(
        (192, 160, 96, 192, 192, 192, 192, 192),
        doc="Output channels of the eight layers before the last.",
    )

    def __attrs_post_init__(self) -> None:
        _check_cfg(self.cfg)

    def build(self) -> nn.Module:
        from micronet_zoo.nin import NINModule

        return NINModule(self.cfg, self.num_classes)


@attrs.frozen(kw_only=True)
class NINGC(Model):
    """Network in network with group convolutions and channel shuffle, for 3x32x32 images."""

    has_batch_norms = True

    num_classes: int = option(10, ge=1, most=10**6, doc="Classes to tell apart.")
    cfg: tuple[int, ...] = option(
        (256, 256, 256, 512, 512, 512, 1024, 1024),
        doc="Output channels of the eight layers before the last; their groups must divide them.",
    )

    def __attrs_post_init__(self) -> None:
        _check_cfg(self.cfg)

    def build(self) -> nn.Module:
        from micronet_zoo.nin_gc import GROUPS, NINGCModule

        for position, channels in enumerate(self.cfg):
            following = GROUPS[position + 1] if position + 1 < len(GROUPS) else 1
            for groups in (GROUPS[position], following):
                if channels % groups:
                    raise OptionError(
                        f"cfg[{position}] must be a multiple of {groups}, the groups of a layer "
                        f"beside it, got {channels}.",
                        "cfg",
                    )
        return NINGCModule(self.cfg, self.num_classes)


@attrs.frozen(kw_only=True)
class ResNet(Model):
    """Residual network (He et al. 2016) for 3x32x32 images: a 3x3 stem, no pooling after it."""

    has_batch_norms = True
    bottlenecks: ClassVar[bool]
    blocks: ClassVar[tuple[int, ...]]

    num_classes: int = option(10, ge=1, most=10**6, doc="Classes to tell apart.")

    def build(self) -> nn.Module:
        from micronet_zoo.resnet import BasicBlock, Bottleneck, ResNetModule

        block = Bottleneck if self.bottlenecks else BasicBlock
        return ResNetModule(block, self.blocks, self.num_classes)


class ResNet18(ResNet):
    __doc__ = ResNet.__doc__
    bottlenecks, blocks = False, (2, 2, 2, 2)


class ResNet34(ResNet):
    __doc__ = ResNet.__doc__
    bottlenecks, blocks = False, (3, 4, 6, 3)


class ResNet50(ResNet):
    __doc__ = ResNet.__doc__
    bottlenecks, blocks = True, (3, 4, 6, 3)


class ResNet101(ResNet):
    __doc__ = ResNet.__doc__
    bottlenecks, blocks = True, (3, 4, 23, 3)


class ResNet152(ResNet):
    __doc__ = ResNet.__doc__
    bottlenecks, blocks = True, (3, 8, 36, 3)


@attrs.frozen(kw_only=True)
class UNet(Model):
    """U-Net (Ronneberger et al. 2015) for images of any size: a class for each pixel.

    Convolutions with batch norm and ReLU at a half to a sixteenth of the size, bilinear
    up-sampling. It gives logits [batch, num_classes, height, width].
    """

    num_classes: int = option(11, ge=1, most=10**6, doc="Classes to tell apart.")
    width: int = option(
        16, ge=1, most=10**4, doc="Channels at half of the size; each halving doubles them."
    )

    def build(self) -> nn.Module:
        from micronet_zoo.unet import UNetModule

        return UNetModule(self.num_classes, self.width)


@attrs.frozen(kw_only=True)
class YOLO(Model):
    """Anchor-free detector for images whose sides are multiples of 32.

    SiLU, CSP blocks, a feature pyramid and decoupled heads as YOLOv8 has them. It gives a map
    [batch, 4 + num_classes, h, w] for each of the strides 8, 16 and 32, in train mode and in eval
    mode: a box's distances to its sides and the labels' logits. `micronet_zoo.boxes` has their
    loss and makes boxes of them.
    """

    num_classes: int = option(
        11,
        ge=1,
        most=10**6,
        doc="Labels to tell apart, from 0; where 0 is the background, that counts.",
    )
    width: int = option(
        8, ge=1, most=10**4, doc="Channels of the stem; later layers have up to eight times that."
    )

    def build(self) -> nn.Module:
        from micronet_zoo.yolo import YOLOModule

        return YOLOModule(self.num_classes, self.width)


def _check_cfg(cfg: tuple[int, ...]) -> None:
    if len(cfg) != 8 or min(cfg) < 1:  # noqa: PLR2004 (the architecture's depth)
        raise OptionError(f"cfg needs eight channel counts of at least 1, got {list(cfg)}.", "cfg")
