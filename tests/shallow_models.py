"""Small members of torchvision's families, made by its own code."""

from torch import nn
from torchvision import models
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock


def googlenet():
    model = models.GoogLeNet(init_weights=True)
    model.inception4b = model.inception4c = model.inception5a = nn.Identity()
    return model


SHALLOW = {
    "densenet": lambda: models.DenseNet(32, (2, 1), 64),
    "efficientnet": lambda: models.EfficientNet(
        [MBConvConfig(1, 3, 1, 32, 16, 1), MBConvConfig(6, 5, 2, 16, 24, 2)], 0.2
    ),
    "googlenet": googlenet,
    "mobilenet_v2": lambda: models.MobileNetV2(
        inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]
    ),
    "mobilenet_v3": lambda: models.MobileNetV3(
        [
            InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1),
            InvertedResidualConfig(16, 5, 96, 16, True, "HS", 1, 1, 1),
        ],
        96,
    ),
    "regnet_y": lambda: models.RegNet(
        BlockParams.from_init_params(3, 24, 36.0, 2.5, 8, se_ratio=0.25)
    ),
    "resnet": lambda: models.ResNet(BasicBlock, [1, 1, 1, 1]),
    "shufflenet_v2": lambda: models.ShuffleNetV2([2, 1, 1], [24, 48, 96, 192, 1024]),
    "swin": lambda: models.SwinTransformer([4, 4], 48, [2, 1], [3, 6], [7, 7]),
    "vit": lambda: models.VisionTransformer(64, 16, 1, 3, 192, 384),
}
"""Families with fewer layers than their smallest member: an export takes its time for each."""
