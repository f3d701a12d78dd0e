"""The commands that deploy a model, time its engine and evaluate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from micronet.cli.printing import JSON, print_json, print_result, print_table, tell

if TYPE_CHECKING:
    from micronet.deployment.bench import Latency
    from micronet.deployment.parity import Parity
    from micronet.techniques import Figure

_ARTIFACT = typer.Argument(metavar="ARTIFACT", help="The folder of a deployed model.")
MODEL = typer.Option(
    metavar="NAME",
    help="What makes the model, as in module:callable; needed where only a file names code for it.",
)
TASK = typer.Option(
    metavar="MODULE:CLASS", help="The same for the task: a registered one, or a class of your own."
)
DATA = typer.Option(
    metavar="NAME",
    help="The data, as in module:callable; needed where only a file names code or a place for it.",
)
_CPU = typer.Option("--cpu", help="Keep torch on the CPU.")


def deploy(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A run's folder, a checkpoint in its steps/, or a packed file."
        ),
    ],
    *,
    backend: Annotated[str, typer.Option(help="The deploy backend.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="The artifact's folder; in the run, or beside the file, if not given.",
        ),
    ] = None,
    dynamic: Annotated[
        str,
        typer.Option(metavar="height,width", help="What may differ at run time beside the batch."),
    ] = "batch",
    precision: Annotated[
        str | None, typer.Option(help="The backend's option of that name, as in fp16.")
    ] = None,
    engine_input: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="'{dtype: uint8, layout: nhwc}'",
            help="What the engine takes in the place of prepared images, as a recipe says it.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Another option of the backend."),
    ] = None,
    min_parity: Annotated[
        float, typer.Option(help="Fraction of test images on which both sides must agree.")
    ] = 0.995,
    model: Annotated[str | None, MODEL] = None,
    data: Annotated[str | None, DATA] = None,
    task: Annotated[str | None, TASK] = None,
    cpu: Annotated[bool, _CPU] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Deploy a run's model, or that of a file, and compare its engine with the simulation."""
    from micronet.options import build
    from micronet.recipe import Deploy

    options = options_of(changes or [], "--set")
    if precision is not None:
        options["precision"] = precision
    given = {
        "backend": backend,
        "options": options,
        "dynamic": [name for name in dynamic.split(",") if name],
        "min_parity": min_parity,
        "input": None if engine_input is None else _plain(engine_input, "--input"),
    }
    step = build(Deploy, given)
    from micronet.pipeline.engines import deploy_stored

    done = deploy_stored(source, step, out, cpu=cpu, model=model, data=data, task=task)
    tell(done.remarks)
    if as_json:
        print_json({**attrs.asdict(done), done.main.name: done.figures[done.main.name]})
        return
    rows = [
        ["Artifact", done.artifact],
        ["Source", done.source],
        ["Size", _megabytes(done.size_mb)],
        ["Size of the float model", _megabytes(done.float_size_mb)],
        [_named(done.main), f"{_shown(done.main, done.figures)} of {done.images} images"],
        *_parity(done.agreement, done.parity),
    ]
    print_table(["Deployed", ""], rows)


def bench(
    artifact: Annotated[Path, _ARTIFACT],
    *,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engine, which else chooses.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in a call.")] = 1,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Time a deployed model and the float model it came from, in turns; needs no torch."""
    from micronet.deployment.bench import bench as measured
    from micronet.deployment.timing import LEGEND, MARK

    done = measured(artifact, threads=threads, batch=batch)
    tell(done.remarks)
    if as_json:
        print_json(attrs.asdict(done))
        return
    mark = MARK if done.disturbed else ""
    rows = [["deployed", *_times(done.latency, mark)]]
    if done.float_latency is not None:
        rows.append(["float", *_times(done.float_latency, mark)])
    images = "no batch" if done.batch is None else f"batch {done.batch}"
    print_result(f"{done.artifact}: {done.engine}, {images}, {done.rounds} calls in turns")
    print_result(f"Takes {'; '.join(done.inputs)}\nGives {'; '.join(done.outputs)}\n")
    print_table(["Model", "p50 (ms)", "p90 (ms)", "p99 (ms)", "Images/s"], rows)
    if done.speedup is not None:
        print_result(f"Speed-up: {done.speedup:.2f}x{mark}")
    if done.disturbed:
        print_result(LEGEND)


def evaluate(
    artifact: Annotated[Path, _ARTIFACT],
    *,
    data: Annotated[str, typer.Option(help="A registered data set, or package.module:callable.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of the data set."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="SOURCE", help="The torch model; if not given, the one that was deployed."
        ),
    ] = None,
    model: Annotated[str | None, MODEL] = None,
    task: Annotated[str | None, TASK] = None,
    cpu: Annotated[bool, _CPU] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Measure a deployed model and its torch model on the test set of some data."""
    from micronet.pipeline.engines import evaluate_artifact
    from micronet.recipe import Named

    named = Named(data, options_of(changes or [], "--set"))
    done = evaluate_artifact(artifact, named, against, cpu=cpu, model=model, task=task)
    tell(done.remarks)
    if as_json:
        name = done.main.name
        alone = {name: done.figures[name], f"torch_{name}": (done.torch_figures or {}).get(name)}
        print_json({**attrs.asdict(done), **alone})
        return
    title = _named(done.main)
    rows = [
        ["Images", str(done.images)],
        [f"{title} of the engine", _shown(done.main, done.figures)],
    ]
    if done.torch_figures is not None and done.agreement is not None and done.parity is not None:
        rows.append([f"{title} of torch", _shown(done.main, done.torch_figures)])
        rows += [["Torch model", str(done.against)], *_parity(done.agreement, done.parity)]
    print_table(["Evaluated", ""], rows)


def show_artifact(directory: Path, *, as_json: bool) -> None:
    """Prints what a deployed model takes and gives."""
    from micronet.techniques import Artifact

    artifact = Artifact.read(directory)
    if as_json:
        print_json(attrs.asdict(artifact, filter=attrs.filters.exclude("directory")))
        return
    print_result(f"{directory}: {artifact.engine}, {artifact.size_bytes / 1e6:.3f} MB\n")
    signature = artifact.signature
    rows = [
        [side, spec.name, spec.dtype, f"[{', '.join(map(str, spec.shape))}]"]
        for side, specs in (("input", signature.input_specs), ("output", signature.output_specs))
        for spec in specs
    ]
    print_table(["", "Name", "Type", "Shape"], rows)
    tell(artifact.remarks)


def options_of(changes: Sequence[str], flag: str) -> dict[str, Any]:
    """What a flag gives by OPTION=VALUE, the values as YAML."""
    options = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise typer.BadParameter(f"{flag} {change}: write it as OPTION=VALUE.")
        options[name] = _plain(text, f"{flag} {change}")
    return options


def _plain(text: str, flag: str) -> Any:
    from micronet.recipe.file import parse

    return parse(text, flag, Path()).content


def _megabytes(size: float | None) -> str:
    return "-" if size is None else f"{size:.3f} MB"


def _named(figure: Figure) -> str:
    return figure.name.replace("_", " ").capitalize()


def _shown(figure: Figure, values: Mapping[str, float]) -> str:
    from micronet.pipeline.results import shown_as

    return shown_as(figure)(values[figure.name])


def _parity(agreement: float, parity: Parity) -> list[list[str]]:
    return [
        ["Same answers as torch", f"{agreement:.2%}"],
        ["Mean error", f"{parity.mean_error:.3g} steps of the output"],
        ["Largest error", f"{parity.max_error:.3g} steps"],
    ]


def _times(latency: Latency, mark: str) -> list[str]:
    times = (latency.p50_ms, latency.p90_ms, latency.p99_ms)
    figures = [*(f"{time:.3g}" for time in times), f"{latency.images_per_second:.0f}"]
    return [figure + mark for figure in figures]
