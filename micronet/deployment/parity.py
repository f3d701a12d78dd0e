"""Whether an engine computes what the simulated model does, and where it first does not."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from micronet import structure
from micronet.deployment.flat_model import OUTPUT
from micronet.errors import DeployError, MicronetError, listed
from micronet.graph import TracingError, trace
from micronet.quantization import FakeQuantizer, convert
from micronet.techniques import DeployBackend

_LEVELS = 255
_TOLERANCE = 0.5
"""Steps. A value that lies between two codes may be rounded the other way by the last bit of a
sum, so single outputs a whole step off are normal; a channel half a step off in the mean is not."""

_GROWTH = 4
"""More than an operation makes of rounding differences in what it reads."""


@attrs.frozen
class Agreement:
    """How close one output of an engine comes to the simulated model's, on the same images.

    A step is that of the last quantizer where the output is quantized; where it is float, 1/255 of
    the range of all simulated values, as an 8-bit grid around them would have; where it holds
    integers or truth values, 1.

    Args:
        top1: Fraction of images that get the same class from both, which is the place of the
            largest value along dimension 1; of pixels or other places where there are more
            dimensions. Fraction of values that are the same where they are integers, and that are
            less than a step off where there is no dimension 1 or only one place along it.
        max_error: Largest difference of two values, in steps.
        mean_error: Mean difference of two values, in steps.
    """

    top1: float
    max_error: float
    mean_error: float


@attrs.frozen
class Parity(Agreement):
    """How close an engine comes to the simulated model: the worst figure of its outputs, and all.

    Args:
        outputs: The figures of each output, by its name.
    """

    outputs: Mapping[str, Agreement] = attrs.field(factory=dict)


@attrs.frozen
class Departure:
    """The first layer whose outputs the engine computes differently.

    Args:
        layer: Its name in the model, or that of an operation between layers in the traced graph.
        error: Mean difference of its outputs in the worst channel, in steps; above 0.5.
        error_before: The same of what it reads; at most 0.5.
    """

    layer: str
    error: float
    error_before: float

    @property
    def sudden(self) -> bool:
        """Whether the layer itself is to blame, and not differences that grew on the way to it."""
        return self.error > _GROWTH * self.error_before


def compare(model: nn.Module, simulated: Any, found: Any) -> Parity:
    """Compares the outputs of a simulated model and of its engine for the same images.

    A value that is NaN or infinite on one side alone counts as infinitely far off, and its image
    as one on which the two do not agree.

    Args:
        model: The simulated model.
        simulated: What it gives: an array, or a dict, list or tuple of arrays, however nested.
        found: What the engine gives.

    Raises:
        DeployError: They differ in structure or in shape.
    """
    comparison = Comparison(model)
    comparison.update(simulated, found)
    return comparison.parity()


class Comparison:
    """Compares a simulated model and its engine batch by batch, and keeps no outputs.

    Args:
        model: The simulated model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._outputs: dict[str, _Apart] = {}

    def update(self, simulated: Any, found: Any) -> None:
        """Takes a batch of both; arguments as `compare`, which also says what is raised."""
        pairs = _paired(simulated, found)
        if not self._outputs:
            nodes = _output_nodes(self.model, len(pairs))
            self._outputs = {
                name: _Apart(self.model, node) for name, node in zip(pairs, nodes, strict=True)
            }
        if pairs.keys() != self._outputs.keys():
            raise DeployError(
                f"The model gave {listed(self._outputs)} before, and now gives {listed(pairs)}."
            )
        for name, pair in pairs.items():
            self._outputs[name].update(*pair)

    def parity(self) -> Parity:
        """The figures for all batches so far."""
        outputs = {name: apart.agreement() for name, apart in self._outputs.items()}
        every = outputs.values()
        return Parity(
            min(each.top1 for each in every),
            max(each.max_error for each in every),
            max(each.mean_error for each in every),
            outputs,
        )

    def worst_images(self, count: int = 16) -> NDArray[np.int64]:
        """Places of the images whose outputs differ most, the worst first.

        Outputs whose first dimension is not that of the first output have no part in it.
        """
        errors = [apart.errors_of_images() for apart in self._outputs.values()]
        alike = [each for each in errors if len(each) == len(errors[0])]
        return np.argsort(-np.max(alike, axis=0), kind="stable")[:count]


class _Apart:
    """How far one output is off, from sums over batches."""

    def __init__(self, model: nn.Module, node: Any) -> None:
        self.model, self.node = model, node
        self.exact = False
        self.step: float | None = None
        self.low, self.high = math.inf, -math.inf
        self.same: list[NDArray[Any]] = []
        self.differences: list[NDArray[Any]] = []
        self.largest: list[NDArray[np.float32]] = []
        self.total, self.values = 0.0, 0

    def update(self, simulated: NDArray[Any], found: NDArray[Any]) -> None:
        if not simulated.size:
            return
        errors = _errors(simulated, found)
        self.exact = simulated.dtype == np.int64
        if self.step is None and not self.exact:
            self.step = _quantizers_step(self.model, self.node, simulated)
        finite = simulated[np.isfinite(simulated)]
        if finite.size:
            self.low, self.high = min(self.low, finite.min()), max(self.high, finite.max())
        if self._by_value(simulated):
            self.differences.append(errors)
        else:
            same = (simulated.argmax(1) == found.argmax(1)) & np.isfinite(errors).all(1)
            self.same.append(same)
        images = len(errors) if errors.ndim else 1
        self.largest.append(errors.reshape(images, -1).max(1))
        self.total += float(errors.sum(dtype=np.float64))
        self.values += errors.size

    def agreement(self) -> Agreement:
        if not self.values:
            return Agreement(1.0, 0.0, 0.0)
        step = self._step()
        same = [*self.same, *(errors / step < 1 for errors in self.differences)]
        right, places = sum(float(each.sum()) for each in same), sum(each.size for each in same)
        largest = max(float(each.max()) for each in self.largest)
        return Agreement(right / places, largest / step, self.total / self.values / step)

    def errors_of_images(self) -> NDArray[np.float32]:
        """The largest of each image, in steps."""
        return np.concatenate(self.largest or [np.zeros(0, np.float32)]) / np.float32(self._step())

    def _by_value(self, simulated: NDArray[Any]) -> bool:
        return self.exact or simulated.ndim < 2 or simulated.shape[1] == 1  # noqa: PLR2004

    def _step(self) -> float:
        if self.exact or not self.values:
            return 1.0
        if self.step is not None:
            return self.step
        span = self.high - self.low
        return float(span) / _LEVELS if math.isfinite(span) and span else 1.0


def _paired(simulated: Any, found: Any) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Both sides' arrays of each output."""
    both = [structure.nest(value) for value in (simulated, found)]
    names, others = (structure.names(tree, OUTPUT) for tree in both)
    if names != others or not names:
        raise DeployError(
            f"The simulated model gives {listed(names)}, the engine gives {listed(others)}."
        )
    pairs = {}
    for name, expected, values in zip(names, *map(structure.leaves, both), strict=True):
        if expected.shape != values.shape:
            raise DeployError(
                f"The output {name!r} is {list(expected.shape)} in the simulated model and "
                f"{list(values.shape)} in the engine."
            )
        pairs[name] = _comparable(expected), _comparable(values)
    return pairs


def _comparable(values: Any) -> NDArray[Any]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.int64)


def _output_nodes(model: nn.Module, count: int) -> list[Any]:
    """What computes each output of a traced model; `None` for each output of another."""
    if isinstance(model, fx.GraphModule):
        nodes = list(structure.leaves(structure.nest(model.graph.output_node().args[0])))
        if len(nodes) == count:
            return nodes
    return [None] * count


def where_they_part(
    model: nn.Module, backend: DeployBackend, images: Tensor, *, dynamic: tuple[str, ...]
) -> str:
    """What `first_departure` finds, as a sentence."""
    try:
        found = first_departure(model, backend, images, dynamic=dynamic)
    except TracingError as error:
        return f"The layer where they part can't be looked for: {error}."
    if found is None:
        return (
            "No layer's outputs are off by more than half a step in the mean, so what decides is "
            "rounding between classes that are nearly equally likely."
        )
    if not found.sudden:
        return (
            f"No layer alone is to blame: differences of rounding grow from layer to layer, and "
            f"reach half a step at {found.layer!r}."
        )
    return (
        f"They first part at {found.layer!r}, whose outputs are off by {found.error:.3g} steps in "
        f"the mean of the worst channel; what it reads is off by {found.error_before:.2g}."
    )


@torch.no_grad()
def first_departure(
    model: nn.Module,
    backend: DeployBackend,
    images: Tensor,
    *,
    dynamic: tuple[str, ...] = ("batch",),
) -> Departure | None:
    """Finds where an engine first computes something else than the simulated model.

    Cuts the model off behind some operation, lets the backend export what is left and compares;
    halves what may be to blame each time, so n operations take about log2(n) exports. An operation
    is to blame if a channel of its outputs is off by more than half a step in the mean while what
    it reads is not.

    Args:
        model: Float, prepared or converted, with its data seen.
        backend: Whose engine is in doubt.
        images: float32 [batch, channels, height, width], two or more.
        dynamic: As `DeployBackend.export` takes it.

    Returns:
        The first such operation; `None` if the outputs of the whole model are not off that far.

    Raises:
        TracingError: torch.fx can't follow the model.
    """
    images = images.cpu().contiguous()
    inference = convert(model).cpu().to(memory_format=torch.contiguous_format)
    graph = inference if isinstance(inference, fx.GraphModule) else trace(inference, (images,))
    search = _Search(graph, backend, images, dynamic)
    outputs = structure.leaves(structure.nest(graph.graph.output_node().args[0]))
    suspect = next((node for node in outputs if search.is_off(node)), None)
    if suspect is None:
        return None
    cleared: set[fx.Node] = set()
    while left := [node for node in search.behind(suspect) if node not in cleared]:
        node = left[len(left) // 2]
        if search.is_off(node):
            suspect = node
        else:
            cleared |= {node, *search.behind(node)}
    before = [search.error(node) for node in suspect.all_input_nodes]
    return Departure(_name(graph, suspect), search.error(suspect), max(before, default=0.0))


class _Search:
    """The operations of a traced model, and how far the engine's outputs of each are off."""

    def __init__(
        self,
        graph: fx.GraphModule,
        backend: DeployBackend,
        images: Tensor,
        dynamic: tuple[str, ...],
    ) -> None:
        self.graph, self.backend, self.images, self.dynamic = graph, backend, images, dynamic
        run = _Recording(graph)
        run.run(images)
        self.expected = run.outputs
        self._errors: dict[fx.Node, float] = {}

    def behind(self, node: fx.Node) -> list[fx.Node]:
        """The operations that a node's outputs come from, in the order in which they run."""
        sources = _sources(node)
        return [other for other in self.expected if other in sources]

    def is_off(self, node: fx.Node) -> bool:
        return self.error(node) > _TOLERANCE

    def error(self, node: fx.Node) -> float:
        """In the mean of the worst channel, in steps; 0 of what can't be tested, as the input."""
        if node not in self._errors:
            self._errors[node] = self._measured(node) if node in self.expected else 0.0
        return self._errors[node]

    def _measured(self, node: fx.Node) -> float:
        part = _up_to(self.graph, node)
        with tempfile.TemporaryDirectory() as folder:
            try:
                artifact = self.backend.export(
                    part, (self.images[:2],), Path(folder), dynamic=self.dynamic
                )
                found = self.backend.load(artifact)(self.images.numpy())
            except MicronetError:  # what can be exported as a whole need not be in part
                return 0.0
        expected = self.expected[node].numpy()
        errors = _errors(expected, found).reshape(*expected.shape[:2], -1)
        return float(errors.mean((0, 2)).max() / _step(self.graph, node, expected))


class _Recording(fx.Interpreter):
    """Keeps each operation's outputs, if they are a tensor with a row for each image."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.outputs: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "placeholder":
            self.images = len(value)
        elif n.op.startswith("call") and _is_float_tensor(value) and len(value) == self.images:
            self.outputs[n] = value.clone()  # the next operation may work in place
        return value


def _is_float_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1


def _sources(node: fx.Node) -> set[fx.Node]:
    """Every node that a node's output comes from."""
    found: set[fx.Node] = set()
    waiting = node.all_input_nodes
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += other.all_input_nodes
    return found


def _up_to(graph: fx.GraphModule, last: fx.Node) -> fx.GraphModule:
    """The part of a model that computes one node's output."""
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    needed = {last, *_sources(last)}
    for node in graph.graph.nodes:
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[last])
    return fx.GraphModule(graph, part).eval()


def _errors(expected: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = np.where(expected == found, np.float32(0), np.abs(expected - found))
    return np.nan_to_num(difference, nan=np.inf, posinf=np.inf)


def _step(model: nn.Module, output: Any, values: NDArray[np.float32]) -> float:
    """The step of a tensor, by the node that computes it and its values; see `Agreement`."""
    step = _quantizers_step(model, output, values)
    return _range_step(values) if step is None else step


def _quantizers_step(model: nn.Module, output: Any, values: NDArray[np.float32]) -> float | None:
    """The step of what a quantizer computes, `None` of anything else."""
    if isinstance(output, fx.Node) and output.op == "call_module":
        quantizer = model.get_submodule(str(output.target))
        if isinstance(quantizer, FakeQuantizer):
            return float(quantizer.quantize(torch.from_numpy(values[:1])).scale.max())
    return None


def _range_step(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) / _LEVELS if finite.size and np.ptp(finite) else 1.0


def _name(graph: fx.GraphModule, node: fx.Node) -> str:
    """What the user calls an operation: a quantizer is part of what it quantizes."""
    if node.op != "call_module":
        return node.name
    if isinstance(graph.get_submodule(str(node.target)), FakeQuantizer):
        return _name(graph, node.all_input_nodes[0])
    calls = [other for other in graph.graph.nodes if other.target == node.target]
    which = f" (call {calls.index(node) + 1} of {len(calls)})" if len(calls) > 1 else ""
    return f"{node.target}{which}"
