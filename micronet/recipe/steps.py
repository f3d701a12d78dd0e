"""A recipe: a model, data, and steps that name techniques. The same in Python and in YAML.

>>> recipe = Recipe(
...     model="nin",
...     data="digits",
...     steps=(Train(epochs=2), Quantize("iao", {"w_bits": 4}), Train(epochs=1), Deploy()),
... )
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs

from micronet.errors import OptionError, RecipeError
from micronet.options import build, freeze, option
from micronet.techniques import EngineInput


def _frozen(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: freeze(value) for key, value in options.items()}


def _technique(kind: str, default: Any = attrs.NOTHING) -> Any:
    return attrs.field(
        default=default,
        kw_only=False,
        metadata={"kind": kind},
        validator=attrs.validators.instance_of(str),
    )


def _technique_options() -> Any:
    return attrs.field(factory=dict, converter=_frozen, kw_only=False, metadata={"inline": True})


@attrs.frozen
class Named:
    """Something by its registered name, or by `package.module:callable`, with its options."""

    name: str
    options: Mapping[str, Any] = attrs.field(factory=dict, converter=_frozen)


FLOAT = "float"
"""The teacher that is the recipe's own float model."""

CLASSIFICATION = "classification"
"""The task of a recipe that names none."""

LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger one."""


def fault_of_seed(seed: int) -> str | None:
    """Why a number is no seed, `None` if it is one."""
    if seed < 0:
        return f"seed must be at least 0, got {seed}."
    return f"seed must be at most {LARGEST_SEED}, got {seed}." if seed > LARGEST_SEED else None


def _check_seed(_recipe: Any, _field: Any, seed: int) -> None:
    fault = fault_of_seed(seed)
    if fault is not None:
        raise RecipeError(fault)


def _as_steps(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(steps)


def _as_named(value: Named | str) -> Named:
    return Named(value) if isinstance(value, str) else value


@attrs.frozen(kw_only=True)
class ParameterGroup:
    """What a group of parameters is trained with instead of what the others are."""

    lr: float = option(gt=0, least=1e-30, most=1e30, doc="Learning rate at its highest.")
    weight_decay: float = option(0.0, ge=0, most=1e12, doc="Decay of the weights.")


def _check_groups(groups: Mapping[str, Any]) -> None:
    for pattern, options in groups.items():
        if not isinstance(options, Mapping) or not options.keys() <= {"lr", "weight_decay"}:
            raise OptionError(
                f"parameters.{pattern} must be a mapping of lr and weight_decay, got {options!r}.",
                "parameters",
            )
        build(ParameterGroup, {"lr": 1.0, **options}, owner=f"parameters.{pattern}")


@attrs.frozen(kw_only=True)
class Train:
    """Train every weight; after `quantize` this is quantization-aware training."""

    key: ClassVar[str] = "train"

    epochs: int = option(1, ge=1, most=10**6, doc="Passes over the training set.")
    lr: float = option(1e-3, gt=0, least=1e-30, most=1e30, doc="Learning rate at its highest.")
    batch_size: int = option(64, ge=1, most=10**6, doc="Images in a step, on each process.")
    optimizer: Literal["adamw", "sgd"] = option(
        "adamw", doc="AdamW, or SGD with a momentum of 0.9."
    )
    weight_decay: float = option(0.0, ge=0, most=1e12, doc="Decay of the weights.")
    schedule: Literal["cosine", "one_cycle", "step", "constant"] = option(
        "cosine",
        doc="How the learning rate goes: down to 0 along a cosine, first up and then down, to a "
        "tenth at half and at three quarters of the steps, or not at all.",
    )
    warmup: float | None = option(
        None,
        ge=0,
        le=0.9,
        doc="Part of the steps in which the rate climbs; null is 0.3 for one_cycle, 0 for others.",
    )
    parameters: Mapping[str, Any] = option(
        attrs.Factory(dict),
        doc="lr and weight_decay for parameters by their names or patterns, as in "
        "{backbone.*: {lr: 1.0e-4}}; the first that fits counts.",
    )
    clip: float | None = option(
        None, gt=0, least=1e-30, most=1e30, doc="Largest norm of all gradients together."
    )
    accumulate: int = option(
        1, ge=1, most=10**6, doc="Batches whose gradients are added up for a step."
    )
    precision: Literal["float32", "bfloat16", "float16"] = option(
        "float32", doc="What matrix products are computed in; weights stay in float32."
    )
    average: float | None = option(
        None,
        gt=0,
        le=0.999999,
        doc="Decay of a moving average of the weights, as 0.999, which the step ends with.",
    )
    keep: Literal["last", "best"] = option(
        "last", doc="Which epoch's weights the step ends with, the best by held-out images."
    )
    patience: int | None = option(
        None, ge=1, most=10**6, doc="Epochs without progress on held-out images that end the step."
    )
    sparsity: float | None = option(
        None,
        gt=0,
        least=1e-30,
        most=1e12,
        doc="Strength of the sparsity term of the pruner in the next prune step.",
    )
    workers: int = option(0, ge=0, most=1024, doc="Processes that load data.")
    loss: str | None = option(
        None, doc="package.module:callable of outputs and targets, in the place of the task's loss."
    )
    teacher: str | None = option(
        None,
        doc="Whose outputs the model learns: float, the recipe's float model, an earlier step, as "
        "01-train, or package.module:callable that returns a module.",
    )
    temperature: float = option(
        2.0, gt=0, least=1e-3, most=1e3, doc="Softens the teacher's probabilities."
    )
    weight: float = option(
        0.9, gt=0, le=1, doc="Part of the loss that is the teacher's; with 1, labels are not read."
    )
    features: tuple[str, ...] = option(
        (), doc="Modules of both whose attention maps the model learns too, such as layer3."
    )

    @property
    def chooses(self) -> bool:
        """Whether images are held out to choose an epoch by."""
        return self.keep == "best" or self.patience is not None

    def __attrs_post_init__(self) -> None:
        _check_groups(self.parameters)


@attrs.frozen(kw_only=True)
class Prune:
    """Remove channels with a pruner."""

    key: ClassVar[str] = "prune"

    pruner: str = _technique("pruner")
    options: Mapping[str, Any] = _technique_options()


@attrs.frozen(kw_only=True)
class Quantize:
    """Put a quantizer's fake quantization in; train or calibrate afterwards."""

    key: ClassVar[str] = "quantize"

    quantizer: str = _technique("quantizer")
    layers: Mapping[str, Any] = option(
        attrs.Factory(dict),
        doc="Choices for single layers by their names or patterns: float, or options of the "
        "quantizer, as in {head.*: float, stem: {w_bits: 4}}; the first that fits counts.",
    )
    options: Mapping[str, Any] = _technique_options()


@attrs.frozen(kw_only=True)
class Calibrate:
    """Let the observers see training images; no weight changes.

    Between `prune` and `quantize`, batch norms measure their running statistics anew instead, as
    means over batches.
    """

    key: ClassVar[str] = "calibrate"

    batches: int = option(
        8,
        ge=1,
        most=10**9,
        doc="Batches of training images, in the data set's order; for batch norms shuffled by the "
        "seed.",
    )
    batch_size: int = option(64, ge=1, most=10**6, doc="Images in a batch.")


@attrs.frozen(kw_only=True)
class Freeze:
    """Stop observers and batch-norm statistics; a train step after it tunes the weights (QAFT)."""

    key: ClassVar[str] = "freeze"


@attrs.frozen(kw_only=True)
class Fuse:
    """Fold layers with a fuser."""

    key: ClassVar[str] = "fuse"

    fuser: str = _technique("fuser", "bn")
    options: Mapping[str, Any] = _technique_options()


@attrs.frozen(kw_only=True)
class Evaluate:
    """Measure the model as it is now."""

    key: ClassVar[str] = "evaluate"


@attrs.frozen(kw_only=True)
class Deploy:
    """Export to an engine, and measure accuracy, latency and parity there."""

    key: ClassVar[str] = "deploy"

    backend: str = _technique("deploy_backend", "onnxruntime")
    options: Mapping[str, Any] = _technique_options()
    min_parity: float = option(
        0.995, ge=0, le=1, doc="Fraction of test images on which engine and simulation must agree."
    )
    dynamic: tuple[Literal["batch", "height", "width"], ...] = option(
        ("batch",), doc="Dimensions that may differ at run time; the batch always may."
    )
    latency_batch: int = option(
        1, ge=1, most=65_536, doc="Images in a call whose latency is measured."
    )
    threads: int | None = option(
        None, ge=1, most=1024, doc="Threads of the engine; null lets the engine choose."
    )
    input: Mapping[str, Any] | None = option(
        None,
        doc="Lets the engine prepare images itself: it takes {dtype: uint8, layout: nhwc, mean: "
        "[...], std: [...]}, or float32 and nchw, where mean and std are the data set's if not "
        "given.",
    )

    @property
    def engine_input(self) -> EngineInput | None:
        """What the engine takes, if not prepared images."""
        if self.input is None:
            return None
        return build(EngineInput, {k: freeze(v) for k, v in self.input.items()}, owner="input")

    def __attrs_post_init__(self) -> None:
        try:
            given = self.engine_input
        except OptionError as error:
            raise OptionError(str(error), "input") from error
        if given is not None and given.layout == "nhwc" and {*self.dynamic} - {"batch"}:
            raise OptionError(
                "input with layout nhwc leaves only the batch free; take dynamic: [batch].",
                "input",
            )


Step = Train | Prune | Quantize | Calibrate | Freeze | Fuse | Evaluate | Deploy
STEPS: dict[str, type[Any]] = {
    cls.key: cls for cls in (Train, Prune, Quantize, Calibrate, Freeze, Fuse, Evaluate, Deploy)
}
"""Each step's name in YAML and its class."""


@attrs.frozen(kw_only=True)
class Recipe:
    """What to do, in order.

    Args:
        model: A registered model, or `package.module:callable` that returns a module.
        data: A registered data set, or `package.module:callable` that returns (train, test).
        steps: At least one.
        weights: A state_dict to start from, safetensors or .pth.
        seed: Of everything random.
        task: A registered task, or `package.module:Class`; what the model's outputs mean.
        requires: Distributions that must be installed, as `"micronet-lsq>=0.2"`.
    """

    model: Named = attrs.field(converter=_as_named)
    data: Named = attrs.field(converter=_as_named)
    steps: tuple[Step, ...] = attrs.field(converter=_as_steps)
    weights: str | None = None
    seed: int = attrs.field(default=0, validator=_check_seed)
    task: Named = attrs.field(default=Named(CLASSIFICATION), converter=_as_named)
    requires: tuple[str, ...] = attrs.field(default=(), converter=tuple)


def step_name(number: int, key: str) -> str:
    """A step's name in folder and table.

    >>> step_name(3, "train")
    '03-train'
    """
    return f"{number:02d}-{key}"


def technique_of(step: Step) -> Named | None:
    """The technique that a step names, `None` if it names none."""
    for field in attrs.fields(type(step)):
        if "kind" in field.metadata:
            return Named(getattr(step, field.name), step.options)  # type: ignore[union-attr]
    return None


def technique_field(cls: type[Any]) -> tuple[str, str] | None:
    """For a class of steps: the field that names its technique, and that technique's kind."""
    for field in attrs.fields(cls):
        if "kind" in field.metadata:
            return field.name, field.metadata["kind"]
    return None


def float_index(steps: Sequence[Any]) -> int:
    """The last step before anything was done to the model but training; -1 is the start."""
    changing = (index for index, step in enumerate(steps) if not isinstance(step, Train))
    return next(changing, len(steps)) - 1


def own_fields(cls: type[Any]) -> list[str]:
    """Names of a step's own fields, without the technique's inline options."""
    return [field.name for field in attrs.fields(cls) if "inline" not in field.metadata]


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe as YAML and JSON know it; loads back to an equal recipe."""
    plain: dict[str, Any] = {"model": _named(recipe.model), "data": _named(recipe.data)}
    if recipe.weights is not None:
        plain["weights"] = recipe.weights
    plain["task"] = _named(recipe.task)
    plain["seed"] = recipe.seed
    if recipe.requires:
        plain["requires"] = list(recipe.requires)
    plain["steps"] = [{step.key: _plain_step(step)} for step in recipe.steps]
    return plain


def _named(named: Named) -> str | dict[str, Any]:
    if not named.options:
        return named.name
    return {"name": named.name, **{key: _thaw(value) for key, value in named.options.items()}}


def _plain_step(step: Step) -> dict[str, Any]:
    plain = {name: _thaw(getattr(step, name)) for name in own_fields(type(step))}
    technique = technique_of(step)
    if technique is not None:
        plain.update({key: _thaw(value) for key, value in technique.options.items()})
    return plain


def _thaw(value: Any) -> Any:
    return [_thaw(item) for item in value] if isinstance(value, (tuple, list)) else value
