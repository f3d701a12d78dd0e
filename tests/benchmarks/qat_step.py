"""One training step with quantization against one without, on the CPU.

    python tests/benchmarks/qat_step.py [--threads 2] [--rounds 15] [--compile]

The peer in the same run is a plain swap of torch's own
`torch.fused_moving_avg_obs_fake_quant` into every convolution, linear layer and activation.
"""

import argparse
import copy

import torch
import torchvision
from interleaved import medians_ms, print_ratios, print_versions
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from micronet.registry import create
from micronet.training.memory import keep_freed_memory


class FusedObserver(nn.Module):
    """torch's fused moving-average observer and fake quantizer, as a module."""

    def __init__(self, axis: int, quant_min: int, quant_max: int, channels: int = 1) -> None:
        super().__init__()
        self.axis, self.range = axis, (quant_min, quant_max)
        on = torch.tensor([1])
        self.register_buffer("on", on)
        self.register_buffer("low", torch.full((channels,), torch.inf))
        self.register_buffer("high", torch.full((channels,), -torch.inf))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("zero_point", torch.zeros(channels, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        per_channel = self.axis >= 0
        return torch.fused_moving_avg_obs_fake_quant(
            x,
            self.on,
            self.on,
            self.low,
            self.high,
            self.scale,
            self.zero_point,
            1.0 if per_channel else 0.01,
            *self.range,
            max(self.axis, 0),
            per_row_fake_quant=per_channel,
            symmetric_quant=per_channel,
        )


def swap_in_fused_observers(model: nn.Module) -> nn.Module:
    """Each convolution and linear layer quantizes its input and weight with `FusedObserver`."""

    def forward_of(layer: nn.Module, weight: FusedObserver, x_quantizer: FusedObserver):
        def forward(x: Tensor) -> Tensor:
            if isinstance(layer, nn.Linear):
                return F.linear(x_quantizer(x), weight(layer.weight), layer.bias)
            return layer._conv_forward(x_quantizer(x), weight(layer.weight), layer.bias)

        return forward

    swapped = copy.deepcopy(model)
    for layer in list(swapped.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weight = FusedObserver(0, -128, 127, len(layer.weight))
            layer.forward = forward_of(layer, weight, FusedObserver(-1, 0, 255))
    return swapped


def step_of(model: nn.Module, images: Tensor, labels: Tensor):
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    model.train()

    def step() -> None:
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--compile", action="store_true", help="also torch.compile; needs a C++ compiler"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print_versions("torchvision")
    torch.manual_seed(0)
    for name, model, shape, classes in (
        ("resnet18, 16x3x64x64", torchvision.models.resnet18(), (16, 3, 64, 64), 1000),
        ("nin, 64x3x32x32", create("model", "nin").build(), (64, 3, 32, 32), 10),
    ):
        images, labels = torch.randn(shape), torch.randint(classes, shape[:1])
        per_layer = create("quantizer", "iao", per_channel=False, fold_bn="running")
        models = {
            "float": model,
            "micronet iao 8/8": create("quantizer", "iao").prepare(model, (images,)),
            "micronet iao 8/8, BN folded": per_layer.prepare(model, (images,)),
            "micronet dorefa 8/8": create("quantizer", "dorefa").prepare(model, (images,)),
            "micronet wbwtab W1A1": create("quantizer", "wbwtab").prepare(model, (images,)),
            "torch fused observer swap": swap_in_fused_observers(model),
        }
        if arguments.compile:
            models["float, torch.compile"] = torch.compile(copy.deepcopy(model))
            prepared = create("quantizer", "iao").prepare(model, (images,))
            models["micronet iao 8/8, torch.compile"] = torch.compile(prepared)
        steps = {variant: step_of(m, images, labels) for variant, m in models.items()}
        print_ratios(name, medians_ms(steps, arguments.rounds), "float")


if __name__ == "__main__":
    main()
