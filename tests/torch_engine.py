"""A third-party deploy backend, and its plugin: a file that torch runs, spoilt where asked."""

import copy
import shutil
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from micronet.hookspecs import hookimpl
from micronet.options import option
from micronet.techniques import Artifact, DeployBackend, Runner, Technique

REMARK = "Nothing here is faster than torch."


def install(folder: Path) -> None:
    """Installs the plugin into a folder on the path."""
    shutil.copy(__file__, folder)
    info = folder / "torch_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[micronet.plugins.v1]\ntorch_engine = torch_engine\n")


@hookimpl
def micronet_deploy_backends() -> list[Technique]:
    return [Technique("torch_engine", "Torch as an engine.", "torch_engine:TorchEngine")]


@attrs.frozen(kw_only=True)
class TorchEngine(DeployBackend):
    """Runs what it is given in torch."""

    spoils: str = option("", doc="The operation whose channel 0 comes out upside down.")

    def available(self) -> None:
        return None

    def export(self, model, example_inputs, directory, *, dynamic=("batch",)) -> Artifact:
        directory.mkdir(exist_ok=True)
        model = copy.deepcopy(model)
        if self.spoils and isinstance(model, fx.GraphModule):
            _spoil(model, self.spoils)
        torch.save(model, directory / "model.pt")
        shape = tuple(example_inputs[0].shape)
        artifact = Artifact(
            directory, "torch_engine", "model.pt", shape, "torch", remarks=(REMARK,)
        )
        artifact.write_card()
        return artifact

    def load(self, artifact: Artifact, *, threads: int | None = None) -> Runner:
        return TorchRunner(torch.load(artifact.path, weights_only=False))


@attrs.frozen
class TorchRunner(Runner):
    module: nn.Module

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return self.module(torch.from_numpy(batch)).numpy()


def _spoil(model: fx.GraphModule, operation: str) -> None:
    for node in list(model.graph.nodes):
        if node.name == operation:
            model.add_module("upside_down", UpsideDown())
            with model.graph.inserting_after(node):
                spoilt = model.graph.call_module("upside_down", (node,))
            others = [user for user in node.users if user is not spoilt]
            node.replace_all_uses_with(spoilt, delete_user_cb=others.__contains__)
    model.recompile()


class UpsideDown(nn.Module):
    """Turns channel 0 of [batch, channels, ...]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-x[:, :1] - 0.5, x[:, 1:]], 1)
