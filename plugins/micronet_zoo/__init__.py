"""Models and data sets that come with micronet."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique

_RESNETS = {18: 11.2, 34: 21.3, 50: 23.5, 101: 42.5, 152: 58.2}
"""Depths, and their parameters in millions with ten classes."""

TORCHVISION_MODELS = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny",
    "densenet121", "densenet161", "densenet169", "densenet201", "efficientnet_b0",
    "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2",
    "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf",
    "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf",
    "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101", "resnet152", "resnet18",
    "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s",
    "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19",
    "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2",
    "wide_resnet50_2",
)  # fmt: skip
"""Names of torchvision's classification models; listing them needs no torchvision."""

TORCHVISION_SEGMENTERS = (
    "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet101", "deeplabv3_resnet50", "fcn_resnet101",
    "fcn_resnet50", "lraspp_mobilenet_v3_large",
)  # fmt: skip

TORCHVISION_DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fcos_resnet50_fpn",
    "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
)  # fmt: skip
"""All but the one of keypoints."""


@hookimpl
def micronet_models() -> list[Technique]:
    return [
        Technique(
            "nin",
            "Network in network for 32x32 images, 0.97 million parameters.",
            "micronet_zoo.models:NIN",
        ),
        Technique(
            "nin_gc",
            "Network in network with group convolutions and channel shuffle, 0.59 million.",
            "micronet_zoo.models:NINGC",
        ),
        *(
            Technique(
                f"resnet{depth}",
                f"Residual network of {depth} layers for 32x32 images, {parameters} million.",
                f"micronet_zoo.models:ResNet{depth}",
            )
            for depth, parameters in _RESNETS.items()
        ),
        Technique(
            "unet_small",
            "U-Net for segmentation, 0.49 million parameters.",
            "micronet_zoo.models:UNet",
        ),
        Technique(
            "yolo_small",
            "Anchor-free detector of three strides, 0.43 million parameters.",
            "micronet_zoo.models:YOLO",
        ),
        *(
            Technique(
                f"torchvision/{name}",
                f"torchvision's {name}, with fresh or trained weights.",
                f"micronet_zoo.torchvision_models:{name}",
            )
            for name in (*TORCHVISION_MODELS, *TORCHVISION_SEGMENTERS, *TORCHVISION_DETECTORS)
        ),
    ]


@hookimpl
def micronet_datasets() -> list[Technique]:
    return [
        Technique(
            "digits",
            "scikit-learn's 1797 handwritten digits as 3x32x32 images; needs no network.",
            "micronet_zoo.datasets:Digits",
        ),
        Technique(
            "cifar10",
            "CIFAR-10, 60000 photographs of 3x32x32 in 10 classes; fetched once.",
            "micronet_zoo.datasets:CIFAR10",
        ),
        Technique(
            "digit_scenes",
            "Handwritten digits on photographs, with boxes or masks; needs no network.",
            "micronet_zoo.digit_scenes:DigitScenes",
        ),
        Technique(
            "image_folder",
            "Your own images: a folder for train and one for test, in each a folder a class.",
            "micronet_zoo.image_folder:ImageFolder",
        ),
        Technique(
            "segmentation_folder",
            "Your own images with a mask each: folders of images, and folders of masks.",
            "micronet_zoo.segmentation_folder:SegmentationFolder",
        ),
        Technique(
            "coco",
            "Your own images with boxes: folders of images, and COCO's JSON files.",
            "micronet_zoo.coco:COCO",
        ),
    ]
