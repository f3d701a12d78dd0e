"""The documentation's LeNet, quantized by hand and automatically: a check after installing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from micronet.compression.quantization.wqaq.iao import quantize as quant_iao


class LeNet(nn.Module):
    """float32 [batch, 1, 28, 28] -> logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1: nn.Module = nn.Conv2d(1, 10, 5)
        self.conv2: nn.Module = nn.Conv2d(10, 20, 5)
        self.fc1: nn.Module = nn.Linear(320, 50)
        self.fc2: nn.Module = nn.Linear(50, 10)
        self.max_pool: nn.Module = nn.MaxPool2d(2)
        self.relu: nn.Module = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.max_pool(self.conv1(x)))
        x = self.relu(self.max_pool(self.conv2(x)))
        x = self.relu(self.fc1(x.flatten(1)))
        out: Tensor = self.fc2(x)
        return out


class QuantLeNet(LeNet):
    """The same, each operation replaced by its quantized twin."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = quant_iao.QuantConv2d(1, 10, 5)
        self.conv2 = quant_iao.QuantConv2d(10, 20, 5)
        self.fc1 = quant_iao.QuantLinear(320, 50)
        self.fc2 = quant_iao.QuantLinear(50, 10)
        self.max_pool = quant_iao.QuantMaxPool2d(2)
        self.relu = quant_iao.QuantReLU()


def quant_test_manual() -> None:
    """Runs a network whose operations were replaced by hand."""
    _run(QuantLeNet())


def quant_test_auto() -> None:
    """Runs a network that `prepare` quantized."""
    _run(quant_iao.prepare(LeNet()))


def _run(quant_model: nn.Module) -> None:
    print(quant_model)
    quant_model(torch.rand(2, 1, 28, 28))
    print("quant_model is ready")
    print("micronet is ready")
