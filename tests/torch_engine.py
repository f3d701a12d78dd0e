"""A third-party deploy backend, and its plugin: a file that torch runs, spoilt where asked.

CROWDED in the environment makes its threads wait for processors, as on a busy machine.
"""

import copy
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import torch
from torch import fx, nn

from micronet.hookspecs import hookimpl
from micronet.options import option
from micronet.structure import Nest
from micronet.techniques import Artifact, DeployBackend, Runner, Signature, Technique, TensorSpec

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

    def write(self, model, example_inputs, directory, *, dynamic) -> Artifact:
        directory.mkdir(exist_ok=True)
        signature = _signature(model, *example_inputs, dynamic)
        model = copy.deepcopy(model)
        if self.spoils and isinstance(model, fx.GraphModule):
            _spoil(model, self.spoils)
        torch.save(model, directory / "model.pt")
        return Artifact(
            directory, "torch_engine", "model.pt", signature, "torch", remarks=(REMARK,)
        )

    def start(self, artifact: Artifact, *, threads: int | None) -> Runner:
        return TorchRunner(artifact.signature, torch.load(artifact.path, weights_only=False))


class TorchRunner(Runner):
    def __init__(self, signature: Signature, module: nn.Module) -> None:
        super().__init__(signature)
        self.module = module
        self.crowd = ThreadPoolExecutor(4 * os.cpu_count()) if "CROWDED" in os.environ else None

    def run(self, inputs):
        if self.crowd is not None:
            matrix = torch.ones(256, 256)
            list(self.crowd.map(matrix.mm, [matrix] * (8 * os.cpu_count())))
        with torch.no_grad():
            return [self.module(torch.from_numpy(inputs["input"])).numpy()]


def _signature(model: nn.Module, images: torch.Tensor, dynamic: tuple[str, ...]) -> Signature:
    """That of a model of one input and one output; an export would tell it too, in a second."""
    places = {"batch": 0, "height": 2, "width": 3}
    shape = list(images.shape)
    for name in dynamic:
        shape[places[name]] = name
    with torch.no_grad():
        outputs = model(images.cpu())
    return Signature(
        Nest("tuple", ["x"], [TensorSpec("input", "float32", shape, images.shape)]),
        TensorSpec("output", "float32", ["batch", *outputs.shape[1:]], outputs.shape),
    )


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
