"""What every step of a run works with, and the model as any step left it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from micronet.errors import DataError, RunError, describe_value
from micronet.pipeline.data import Sets, checked_sets, fitted_task, for_task
from micronet.pipeline.folder import START, RunFolder
from micronet.pipeline.results import Row
from micronet.pipeline.samples import Samples
from micronet.pruning import PruningPlan, apply_plan
from micronet.recipe import (
    FLOAT,
    Deploy,
    Evaluate,
    Freeze,
    Fuse,
    Named,
    Prune,
    Quantize,
    Step,
    Train,
    float_index,
    step_name,
)
from micronet.recipe.own_code import refuse_unnamed
from micronet.recipe.resolution import Resolved, resolve
from micronet.recipe.sources import ROLES
from micronet.storage.pruned import plans_in, pruned_as_in
from micronet.storage.weights import fill, load_state, load_weights
from micronet.streams import say
from micronet.techniques import Task
from micronet.training.accelerator import make_accelerator
from micronet.training.distillation import Distillation
from micronet.training.kernels import channels_last
from micronet.training.objective import Objective


@attrs.frozen
class Context:
    """A recipe, its folder, its data, and where it runs."""

    resolved: Resolved
    folder: RunFolder
    accelerator: Accelerator
    train_set: Samples
    test_set: Samples

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.resolved.recipe.steps

    @property
    def task(self) -> Task:
        """What the model is for."""
        return self.train_set.task

    @property
    def two_samples(self) -> list[tuple[Tensor, Any]]:
        """Of the training set, on the CPU."""
        return [self.train_set[index] for index in (0, 1)]

    @property
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two training images, on the CPU."""
        return (torch.stack([image for image, _ in self.two_samples]),)

    def checked(self) -> Context:
        """The same, once the recipe's first model has run on its images, with labels it knows."""
        name = self.resolved.recipe.model.name
        tell = say if self.accelerator.is_main_process else _no_word
        model = start_model(self.resolved, tell)
        task = fitted_task(self.task, model, name, self.example_inputs)
        train_set, test_set = for_task((self.train_set, self.test_set), task)
        return attrs.evolve(self, train_set=train_set, test_set=test_set)

    def technique(self, index: int) -> Any:
        return self.resolved.techniques[index]

    def name(self, index: int) -> str:
        """A step's name in folder and table; -1 is the model that the recipe starts with."""
        return START if index < 0 else step_name(index + 1, self.steps[index].key)

    @property
    def first(self) -> int:
        """The step that a run begins with; a model that is not trained first is measured first."""
        return 0 if isinstance(self.steps[0], Train) else -1

    def names(self, last: int | None = None) -> list[str]:
        """The names of all steps, or of those up to one."""
        end = len(self.steps) if last is None else last + 1
        return [self.name(index) for index in range(self.first, end)]

    def seed(self, index: int) -> int:
        """The seed of a step."""
        return self.resolved.recipe.seed * 1000 + index

    def plans(self, index: int) -> dict[int, PruningPlan]:
        """What each prune step up to step `index` kept."""
        prunes = (i for i, step in enumerate(self.steps[: index + 1]) if isinstance(step, Prune))
        return {position: self._plan(position) for position in prunes}

    def pruning(self, index: int) -> tuple[PruningPlan, ...]:
        """All that the model of step `index` was pruned by, the recipe's weights before its steps.

        Empty once a step has changed more of the model than plans tell.
        """
        if any(isinstance(step, (Quantize, Fuse)) for step in self.steps[: index + 1]):
            return ()
        return (*self.start_plans, *self.plans(index).values())

    @property
    def start_plans(self) -> tuple[PruningPlan, ...]:
        """How the model of the recipe's weights had been pruned."""
        return () if self.resolved.weights is None else plans_in(self.resolved.weights)

    def float_index(self) -> int:
        """The last step before anything was done to the model but training."""
        return float_index(self.steps)

    def objective(self, index: int) -> Objective:
        """What a train step makes small."""
        step, callables = self.steps[index], self.resolved.callables
        assert isinstance(step, Train)
        own = callables.get((index, "loss"))
        distillation = None
        if step.teacher is not None:
            teacher = self._teacher(index, step.teacher)
            distillation = Distillation(teacher, self.task, step.temperature, step.features)
        return Objective(
            task=self.task,
            own=own and own.function,
            distillation=distillation,
            weight=step.weight,
        )

    def _teacher(self, index: int, name: str) -> nn.Module:
        """The model that a train step learns from, as it is when it is measured."""
        own = self.resolved.callables.get((index, "teacher"))
        if own is not None:
            model = own()
            if not isinstance(model, nn.Module):
                raise RunError(
                    f"{name} must return a torch.nn.Module, got {describe_value(model)}."
                )
            model = channels_last(model.to(self.accelerator.device))
        elif name == FLOAT:
            model = self.model_after(self.float_index())
        else:
            model = self.model_after(int(name.partition("-")[0]) - 1)
        return model.eval().requires_grad_(False)

    def float_row(self) -> Row | None:
        """The float model's measurements, which every other row is compared with."""
        record = self.folder.finished(self.name(self.float_index()))
        return None if record is None else record.row

    def model_after(self, index: int) -> nn.Module:
        """The model as step `index` left it, on the accelerator's device.

        Always made from the recipe and the checkpoints, also where the last step's model would
        still be at hand: so a run that was stopped can't differ from one that was not.
        """
        set_seed(self.resolved.recipe.seed)
        model = start_model(self.resolved)
        quantizer: Any = None
        for earlier, step in enumerate(self.steps[: index + 1]):
            if isinstance(step, Freeze):
                self._load_weights(model, earlier - 1)
                quantizer.freeze(model)
            if isinstance(step, Quantize):
                quantizer = self.technique(earlier)
            plan = self._plan(earlier) if isinstance(step, Prune) else None
            technique = self.technique(earlier)
            model = reshaped(model, step, technique, plan, self.example_inputs)
        self._load_weights(model, index)
        return channels_last(model.to(self.accelerator.device))

    def _plan(self, index: int) -> PruningPlan:
        record = self.folder.finished(self.name(index))
        if record is None or record.plan is None:
            raise DataError(f"{self.folder.record(self.name(index))} lacks the pruning plan.")
        return PruningPlan.from_json(record.plan)

    def _load_weights(self, model: nn.Module, index: int) -> None:
        """The weights of step `index`, or of the last one before it that wrote any."""
        path = self.folder.weights_after(self.names(index))
        if path is not None:
            fill(model, load_state(path), path)


def open_run(
    run: Path | str,
    *,
    cpu: bool = False,
    sets: Sets | None = None,
    model: str | None = None,
    data: str | None = None,
    task: str | None = None,
) -> Context:
    """A run's context, to look at what its finished steps left.

    Args:
        run: The run's folder.
        cpu: Stay on the CPU where there is a GPU.
        sets: (training set, test set) in the place of the recipe's.
        model: What makes its model, by the recipe's name or another; needed where that is code of
            somebody's own, in a run that this user has not started here.
        data: The same for its data, also where its options say where that lies.
        task: The same for its task.

    Raises:
        DataError: There is no run, or its recipe was changed.
        RecipeError: What its recipe names is not installed here, or must be named; engines need
            not be installed.
    """
    folder = RunFolder(Path(run))
    recipe, own = folder.recipe()
    steps = [Evaluate() if isinstance(step, Deploy) else step for step in recipe.steps]
    # The first checkpoint stands for the recipe's weights: their file may be gone, or named from
    # elsewhere.
    resolved = resolve(
        attrs.evolve(
            recipe,
            steps=steps,
            weights=None,
            model=renamed(recipe.model, model),
            data=renamed(recipe.data, data),
            task=renamed(recipe.task, task),
        ),
        trusted=[
            role for role, given in zip(ROLES, (model, data, task), strict=True) if own or given
        ],
        structure_only=True,
    )
    refuse_unnamed(
        f"{run} was not started by you on this machine, and",
        resolved.build_model,
        resolved.task,
        *(() if sets else (resolved.load_data,)),
    )
    sets = sets or checked_sets(resolved.load_data(), resolved.recipe.data.name, resolved.task)
    context = Context(resolved, folder, make_accelerator(cpu=cpu), *sets)
    if recipe.weights is not None:
        first = folder.weights_after([context.name(context.first)])
        context = attrs.evolve(context, resolved=attrs.evolve(resolved, weights=first))
    return context.checked()


def renamed(recorded: Named, given: str | None) -> Named:
    """What a file names, or what is given in its place; the file's options are for its own name."""
    return recorded if given in (None, recorded.name) else Named(given)


def _no_word(_: str) -> None:
    """Says nothing."""


def start_model(resolved: Resolved, tell: Callable[[str], None] = _no_word) -> nn.Module:
    """The model that a recipe begins with: a smaller one, if its weights are those of one.

    Args:
        resolved: The recipe.
        tell: Gets a sentence where its weights have another form than the model's state_dict.
    """
    model = resolved.build_model()
    if not isinstance(model, nn.Module):
        raise DataError(f"The model must be a torch.nn.Module, got {type(model).__name__}.")
    _check_state(model, resolved.recipe.model.name)
    if resolved.weights is not None:
        model = pruned_as_in(model, resolved.weights)
        understood = load_weights(model, resolved.weights)
        if understood is not None:
            tell(understood)
    return model


def _check_state(model: nn.Module, name: str) -> None:
    """Refuses a model whose state no file of weights can hold."""
    for key, value in model.state_dict().items():
        if is_lazy(value):
            raise DataError(
                f"model {name} has lazy layers, as {key!r} has no shape yet; call the model once "
                f"on an image before you return it."
            )
        if not isinstance(value, Tensor):
            raise DataError(
                f"model {name} keeps {key!r} in its state_dict, a {type(value).__name__}; files of "
                f"weights hold tensors alone."
            )


def reshaped(
    model: nn.Module,
    step: Step,
    technique: Any,
    plan: PruningPlan | None,
    example_inputs: tuple[Tensor, ...],
) -> nn.Module:
    """A model with the structure that a step gives it; its weights do not matter."""
    if isinstance(step, Prune):
        assert plan is not None
        return apply_plan(model, plan)
    if isinstance(step, Quantize):
        prepared: nn.Module = technique.prepare(model, example_inputs)
        return prepared
    if isinstance(step, Fuse):
        fused: nn.Module = technique.fuse(model, example_inputs)
        return fused
    return model
