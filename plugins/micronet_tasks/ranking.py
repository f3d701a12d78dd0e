"""How well logits rank the images that have a class before those that have not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from micronet.techniques import Metric


class AveragePrecision(Metric):
    """Mean over classes of the average precision; classes that no image has do not count."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.outputs.append(outputs)
        self.targets.append(targets)

    def compute(self) -> Mapping[str, float]:
        outputs, targets = torch.cat(self.outputs).numpy(), torch.cat(self.targets).numpy()
        seen = targets.any(0)
        if not seen.any():
            return {"mean_ap": 0.0}
        classes = [
            average_precision_score(targets[:, number], outputs[:, number])
            for number in np.flatnonzero(seen)
        ]
        return {"mean_ap": float(np.mean(classes))}

    def notes(self) -> list[str]:
        absent = int((~torch.cat(self.targets).bool().any(0)).sum())
        return [f"{absent} classes are on no test image, and do not count."] if absent else []
