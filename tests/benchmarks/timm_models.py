"""Sixty of timm's architectures, the smallest of each family, for images as small as they take."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

TIMM: dict[str, int | dict[str, int]] = {
    # Residual networks, with attention over channels, split attention and standardised weights.
    "resnet10t": 64,
    "seresnet18": 64,
    "seresnext26t_32x4d": 64,
    "ecaresnet26t": 64,
    "resnest14d": 64,
    "resnetv2_50x1_bit": 64,
    "eca_nfnet_l0": 64,
    # Searched and mobile ones; those with tf_ pad as TensorFlow does.
    "efficientnet_b0": 64,
    "tf_efficientnet_b0": 64,
    "tf_efficientnetv2_b0": 64,
    "mobilenetv2_035": 64,
    "mobilenetv3_small_050": 64,
    "mobilenetv4_conv_small_035": 64,
    "mnasnet_small": 64,
    "ghostnet_050": 64,
    "fbnetc_100": 64,
    "lcnet_035": 64,
    "tf_mixnet_s": 64,
    "regnety_002": 64,
    "rexnet_100": 64,
    # Other convolutional ones, and those whose branches can be merged.
    "densenet121": 64,
    "dla46_c": 64,
    "dpn48b": 64,
    "ese_vovnet19b_slim_dw": 64,
    "cspresnet50": 64,
    "cs3darknet_focus_s": 64,
    "hrnet_w18_small": 64,
    "selecsls42b": 64,
    "inception_v4": 96,
    "legacy_xception": 64,
    "repvgg_a0": 64,
    "mobileone_s0": 64,
    "fastvit_t8": 64,
    # Between convolution and attention.
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "edgenext_xx_small": 64,
    "mobilevit_xxs": 64,
    "coatnet_pico_rw_224": {"img_size": 64},
    "maxvit_pico_rw_256": {"img_size": 64},
    "poolformer_s12": 64,
    "caformer_s18": 64,
    "levit_conv_128s": 224,
    "efficientformer_l1": 224,
    "efficientvit_b0": 64,
    "visformer_tiny": 224,
    # Attention.
    "vit_tiny_patch16_224": {"img_size": 64},
    "deit_tiny_distilled_patch16_224": {"img_size": 64},
    "cait_xxs24_224": {"img_size": 64},
    "xcit_nano_12_p16_224": {"img_size": 64},
    "beit_base_patch16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 64},
    "swinv2_tiny_window8_256": {"img_size": 64},
    "twins_svt_small": {"img_size": 64},
    "pvt_v2_b0": 64,
    "crossvit_tiny_240": 240,
    "tnt_s_patch16_224": {"img_size": 64},
    "hiera_tiny_224": 224,
    # Neither convolution nor attention in their blocks.
    "mixer_s32_224": {"img_size": 64},
    "gmlp_ti16_224": {"img_size": 64},
    "resmlp_12_224": {"img_size": 64},
}
"""The height and width of each one's images; a dict where the model has to be told of them."""


def timm_model(name: str) -> tuple[nn.Module, int]:
    """One of timm's models with random weights and 10 classes, and the size of its images."""
    import timm

    torch.manual_seed(0)
    size = TIMM[name]
    options: dict[str, Any] = size if isinstance(size, dict) else {}
    model = timm.create_model(name, pretrained=False, num_classes=10, **options)
    return model, size["img_size"] if isinstance(size, dict) else size
