"""Residual networks: float32 [batch, 3, 32, 32] -> logits [batch, num_classes]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micronet import registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


def resnet18(num_classes: int = 10) -> nn.Module:
    return _resnet(18, num_classes)


def resnet34(num_classes: int = 10) -> nn.Module:
    return _resnet(34, num_classes)


def resnet50(num_classes: int = 10) -> nn.Module:
    return _resnet(50, num_classes)


def resnet101(num_classes: int = 10) -> nn.Module:
    return _resnet(101, num_classes)


def resnet152(num_classes: int = 10) -> nn.Module:
    return _resnet(152, num_classes)


def _resnet(depth: int, num_classes: int) -> nn.Module:
    net: nn.Module = registry.create("model", f"resnet{depth}", num_classes=num_classes).build()
    return net
