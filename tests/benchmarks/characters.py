"""62 classes of characters, drawn with the fonts that matplotlib brings: harder than the digits."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.utils.data import TensorDataset

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIZE = 32


def characters(images, seed):
    """Images [images, 3, 32, 32], moved, turned and noisy, and the numbers of their characters."""
    random = np.random.default_rng(seed)
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    fonts = sorted(p for p in folder.glob("*.ttf") if p.name.startswith(("DejaVuS", "STIXGeneral")))
    drawn = []
    for number in range(images):
        character = CHARACTERS[number % len(CHARACTERS)]
        font = ImageFont.truetype(str(random.choice(fonts)), int(random.integers(16, 28)))
        picture = Image.new("L", (SIZE, SIZE))
        place = tuple(SIZE / 2 + random.uniform(-4, 4, 2))
        ImageDraw.Draw(picture).text(place, character, 255, font, anchor="mm")
        picture = picture.rotate(random.uniform(-15, 15))
        drawn.append(np.asarray(picture) / 255 + random.normal(0, 0.2, (SIZE, SIZE)))
    pixels = torch.tensor(np.array(drawn), dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    return TensorDataset(pixels.contiguous(), torch.arange(images) % len(CHARACTERS))
