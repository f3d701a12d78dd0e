"""Runs a recipe in a folder, and goes on where it stopped."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console

from micronet.errors import MicronetError, RunError, describe_error, lost_worker
from micronet.pipeline.context import Context
from micronet.pipeline.data import checked_sets
from micronet.pipeline.environment import changed, environment
from micronet.pipeline.folder import Record, RunFolder
from micronet.pipeline.opening import check_folder, open_folder
from micronet.pipeline.own_runs import key_file
from micronet.pipeline.progress import Reporter
from micronet.pipeline.results import Results, whole_layers
from micronet.pipeline.steps import take_step
from micronet.pipeline.trial import faults_of_model
from micronet.recipe import Prune, Recipe, technique_of, to_plain
from micronet.recipe.faults import Faults
from micronet.recipe.place import Nowhere
from micronet.recipe.resolution import Resolved, resolve
from micronet.training.accelerator import ignored_variables, make_accelerator
from micronet.training.kernels import deterministic
from micronet.training.memory import keep_freed_memory


def run(
    recipe: Recipe | Resolved,
    out: Path | str,
    *,
    fresh: bool = False,
    cpu: bool = False,
    quiet: bool = False,
) -> Results:
    """Runs a recipe, or what is left of it.

    Args:
        recipe: What to do.
        out: The run's folder; made if it is not there. A run that was stopped in it goes on.
        fresh: Forget a run that is there, and start again.
        cpu: Stay on the CPU where there is a GPU.
        quiet: Show no progress on stderr.

    Raises:
        MicronetError: What went wrong, in words. Finished steps stay finished.
    """
    resolved = recipe if isinstance(recipe, Resolved) else resolve(recipe)
    # Told to use none, several processes find each other on a machine without a GPU too.
    cpu = cpu or not torch.accelerator.is_available()
    accelerator = make_accelerator(cpu=cpu, quiet=quiet)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    main = accelerator.is_main_process
    reporter = Reporter(Console(stderr=True), enabled=main and not quiet)
    folder = RunFolder(Path(out))
    with folder.locked() if main else contextlib.nullcontext(), deterministic():
        if main:
            _open(folder, resolved, accelerator, reporter, cpu=cpu, fresh=fresh)
        accelerator.wait_for_everyone()
        sets = checked_sets(resolved.load_data(), resolved.recipe.data.name, resolved.task)
        context = Context(resolved, folder, accelerator, *sets).checked()
        if main:
            folder.check_files(context.names())
        faults = Faults()
        for key, fault in faults_of_model(resolved, context.task, context.two_samples):
            faults.add(Nowhere().error(key, fault))
        faults.check()
        for index in range(context.first, len(context.steps)):
            _step(context, index, reporter)
        return _results(context)


def _open(
    folder: RunFolder,
    resolved: Resolved,
    accelerator: Accelerator,
    reporter: Reporter,
    *,
    cpu: bool,
    fresh: bool,
) -> None:
    here = environment(
        seed=resolved.recipe.seed,
        processes=accelerator.num_processes,
        device=str(accelerator.device),
        code=resolved.code,
        weights=resolved.weights,
        ignored=ignored_variables(cpu=cpu),
    )
    check_folder(folder)
    start = None if fresh else folder.start()
    before = None if start is None else start.environment
    if before is not None and before.get("weights", here["weights"]) != here["weights"]:
        raise RunError(
            f"{folder.path} holds a run that began with other weights: {resolved.weights} has "
            f"changed. Use --fresh to start again, or another --out."
        )
    own = start is None or folder.is_own()
    open_folder(folder, to_plain(resolved.recipe), here, fresh=fresh)
    if not own:
        reporter.say(
            "This run was started by somebody else or on another machine; what its finished "
            "steps left is taken as it is."
        )
    if resolved.code and not folder.is_own():
        reporter.say(
            f"{key_file() or 'A key'} can't be kept, so this run bears no signature; other "
            f"commands will ask for {' and '.join(resolved.code)} again."
        )
    if before is not None and (differences := changed(before, here)):
        reporter.say(
            f"This run goes on under other conditions, so it may not end with the same bits; "
            f"finished steps are as they were: {'; '.join(differences)}."
        )


def _step(context: Context, index: int, reporter: Reporter) -> None:
    """Takes a step, unless it is finished; its record makes it count."""
    name, title = context.name(index), _title(context, index)
    main = context.accelerator.is_main_process
    if context.folder.finished(name) is not None:
        if main:  # the run may have been killed in the moment after the step
            context.folder.tidy(name, _results(context))
        reporter.say(f"{title}  done before")
        return
    start = time.monotonic()
    try:
        with reporter.step(title) as bar:
            record = take_step(context, index, bar)
    except MicronetError:
        raise
    except (SystemExit, GeneratorExit) as error:  # the run would end with no word
        raise RunError(
            f"Step {name}: the model or a technique fails: {describe_error(error)}."
        ) from error
    except Exception as error:  # a plugin, or a model, may raise anything
        reporter.say(f"{title}  failed")
        if isinstance(error, RuntimeError) and (lost := lost_worker(error)) is not None:
            raise lost from error
        raise
    if main:
        context.folder.finish(name, record)
        context.folder.tidy(name, _results(context))
    context.accelerator.wait_for_everyone()
    reporter.done(title, record.row, context.task.figures[0], time.monotonic() - start)
    for remark in [*record.remarks, *_of_pruning(context, index, record)]:
        reporter.say(f"  {remark}")


def _of_pruning(context: Context, index: int, record: Record) -> list[str]:
    """What a prune step has to say, before a long training follows it."""
    if record.row is None or index < 0 or not isinstance(context.steps[index], Prune):
        return []
    layers = whole_layers(record.row.reasons, _NAMED)
    if layers != whole_layers(record.row.reasons):
        layers.append(f"all of them: {context.folder.path / 'results.md'}")
    return [*record.row.notes, *layers]


_NAMED = 5
"""Layers, and reasons, that a running prune step names."""


def _results(context: Context) -> Results:
    records = context.folder.records(context.names())
    return Results([record.row for record in records if record.row], context.task.figures)


def _title(context: Context, index: int) -> str:
    if index < 0:
        return f"[0/{len(context.steps)}] {context.resolved.recipe.model.name}"
    step = context.steps[index]
    technique = technique_of(step)
    words = [f"[{index + 1}/{len(context.steps)}]", step.key]
    return " ".join([*words, technique.name] if technique else words)
