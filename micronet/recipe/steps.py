"""A recipe: a model, data, and steps that name techniques. The same in Python and in YAML.

>>> recipe = Recipe(
...     model="nin",
...     data="digits",
...     steps=(Train(epochs=2), Quantize("iao", {"w_bits": 4}), Train(epochs=1), Deploy()),
... )
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import attrs

from micronet.errors import RecipeError
from micronet.options import freeze, option


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
class Train:
    """Train every weight; after `quantize` this is quantization-aware training."""

    key: ClassVar[str] = "train"

    epochs: int = option(1, ge=1, most=10**6, doc="Passes over the training set.")
    lr: float = option(1e-3, gt=0, least=1e-30, most=1e30, doc="Learning rate at the start.")
    batch_size: int = option(64, ge=1, most=10**6, doc="Images in a step, on each process.")
    optimizer: Literal["adamw", "sgd"] = option(
        "adamw", doc="AdamW, or SGD with a momentum of 0.9."
    )
    weight_decay: float = option(0.0, ge=0, most=1e12, doc="Decay of the weights.")
    schedule: Literal["cosine", "constant"] = option(
        "cosine", doc="How the learning rate goes on: down to 0 along a cosine, or not at all."
    )
    sparsity: float | None = option(
        None,
        gt=0,
        least=1e-30,
        most=1e12,
        doc="Strength of the sparsity term of the pruner in the next prune step.",
    )
    workers: int = option(0, ge=0, most=1024, doc="Processes that load data.")


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
