"""Run by torchrun on two processes: each trains and calibrates, and saves what it ends with."""

import os
import sys
from pathlib import Path

import tiny
import torch
from torch import Tensor, nn

from micronet import registry
from micronet.training.accelerator import make_accelerator
from micronet.training.loop import TrainingOptions, train

out = Path(sys.argv[1])
rank = int(os.environ["RANK"])
accelerator = make_accelerator(cpu=True)
training_set, _ = tiny.data()
options = TrainingOptions(
    epochs=2,
    lr=1e-2,
    batch_size=32,
    optimizer="adamw",
    weight_decay=0.0,
    schedule="cosine",
    workers=0,
)
task = registry.create("task", "classification")
iao = registry.create("quantizer", "iao")
minmax = registry.create("quantizer", "iao", a_observer="minmax")
example_inputs = (torch.zeros(2, 3, 16, 16),)

torch.manual_seed(0)
model = iao.prepare(tiny.model(), example_inputs)
train(model, training_set, options, task=task, accelerator=accelerator, seed=1)
torch.save(model.state_dict(), out / f"trained.{rank}")

torch.manual_seed(0)
model = minmax.prepare(tiny.model(), example_inputs)
low, high = [(0.0, 1.0), (-3.0, 5.0)][rank]
minmax.calibrate(model, [torch.full((2, 3, 16, 16), low), torch.full((2, 3, 16, 16), high)])
torch.save(model.state_dict(), out / f"calibrated.{rank}")

torch.manual_seed(0)
refining = registry.create(
    "quantizer", "iao", equalize=True, rounding="learned", bias_correction=True
)
model = refining.prepare(tiny.model(), example_inputs)
images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(rank))
refining.calibrate(model, [images])
torch.save(model.state_dict(), out / f"refined.{rank}")


class Spare(nn.Module):
    """Has a layer that nothing calls, and one that only the first process calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused, self.of_one = tiny.model(), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.body(images)
        return logits + self.of_one(logits) if rank == 0 else logits


torch.manual_seed(0)
model = Spare()
before = model.unused.weight.clone()
train(model, training_set, options, task=task, accelerator=accelerator, seed=1)
torch.save({**model.state_dict(), "before": before}, out / f"spare.{rank}")

torch.distributed.barrier()
torch.distributed.destroy_process_group()  # its threads would outlive the interpreter
