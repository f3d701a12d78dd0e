"""The kinds of techniques: what a plugin can bring, and the contract of each.

No module here imports torch when it is loaded, so that techniques can be listed and described
without it. A technique is a frozen attrs class: its fields are its options, its methods do the
work and import what they need.
"""

from micronet.techniques.by_layer import ByLayer
from micronet.techniques.channel_pruner import ChannelPruner
from micronet.techniques.dataset import Contents, Dataset
from micronet.techniques.deploy_backend import Artifact, DeployBackend, Runner
from micronet.techniques.engine_input import EngineInput
from micronet.techniques.fuser import Fuser
from micronet.techniques.images import ImageFacts
from micronet.techniques.model import Model
from micronet.techniques.observer import Observer
from micronet.techniques.pruner import Pruner, PruningResult
from micronet.techniques.quantizer import Quantizer
from micronet.techniques.scheme import Scheme
from micronet.techniques.signature import Signature, TensorSpec
from micronet.techniques.task import Figure, Metric, Task
from micronet.techniques.technique import Technique

KINDS: dict[str, type] = {
    "quantizer": Quantizer,
    "observer": Observer,
    "pruner": Pruner,
    "fuser": Fuser,
    "deploy_backend": DeployBackend,
    "model": Model,
    "dataset": Dataset,
    "task": Task,
}
"""Each kind's name and the class that its techniques derive from."""

__all__ = [
    "KINDS",
    "Artifact",
    "ByLayer",
    "ChannelPruner",
    "Contents",
    "Dataset",
    "DeployBackend",
    "EngineInput",
    "Figure",
    "Fuser",
    "ImageFacts",
    "Metric",
    "Model",
    "Observer",
    "Pruner",
    "PruningResult",
    "Quantizer",
    "Runner",
    "Scheme",
    "Signature",
    "Task",
    "Technique",
    "TensorSpec",
]
