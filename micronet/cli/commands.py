"""The commands of `micronet`.

Nothing heavy is imported until a command needs it: listing and showing techniques load no torch.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer
from typer.core import TyperCommand

from micronet.cli import engines
from micronet.cli.printing import JSON, counted, print_json, print_result, print_table, tell
from micronet.cli.processes import choose_gpus, leave_the_others
from micronet.errors import MicronetError, nearest
from micronet.streams import close_stdout, results, say
from micronet.tables import print_tables_that_fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from micronet.pipeline import Results

app = typer.Typer(
    help="Makes trained PyTorch vision models small and fast on real targets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _Command(TyperCommand):
    """A command that alone prints on stdout, whatever code it calls."""

    def invoke(self, ctx: Any) -> Any:
        close_stdout()
        return super().invoke(ctx)


_command = functools.partial(app.command, cls=_Command)

_RECIPE = typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")
_SET = typer.Option(
    "--set",
    metavar="PATH=VALUE",
    help="Replace one value, as in steps.0.train.epochs=3. May be given again.",
)


def _version(*, wanted: bool) -> None:
    if wanted:
        from micronet.distribution import own_version

        print_result(own_version())
        raise typer.Exit


def _plugins(values: list[str] | None) -> list[str]:
    from packaging.utils import canonicalize_name

    from micronet.registry.discovery import BLOCK_VARIABLE, declared

    blocked = []
    for value in values or []:
        prefix, _, name = value.partition(":")
        if prefix != "no" or not name:
            raise typer.BadParameter(f"{value!r}: write no:NAME to block the plugin NAME.")
        blocked.append(name)
    if blocked:
        os.environ[BLOCK_VARIABLE] = ",".join([os.environ.get(BLOCK_VARIABLE, ""), *blocked])
        known = declared()
        for name in blocked:
            if canonicalize_name(name) not in map(canonicalize_name, known):
                say(
                    f"micronet: -p no:{name} blocks nothing: no plugin or distribution has that "
                    f"name.{nearest(name, known)}"
                )
    return blocked


@app.callback()
def _options(
    *,
    plugins: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="no:NAME", help="Block the plugin or distribution NAME."),
    ] = None,
    traceback: Annotated[  # noqa: ARG001 (`main` takes it out of the line, wherever it stands)
        bool, typer.Option("--traceback", help="Show where an error came from.")
    ] = False,
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            callback=lambda v: _version(wanted=v),
            is_eager=True,
        ),
    ] = False,
) -> None:
    _plugins(plugins)


@_command("run")
def _run(
    recipe: Annotated[str, _RECIPE],
    *,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/RECIPE if not given.")
    ] = None,
    changes: Annotated[list[str] | None, _SET] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget a run in that folder, and start again.")
    ] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Stay on the CPU.")] = False,
    gpu_id: Annotated[
        str | None, typer.Option(metavar="0,1", help="GPUs to use; several start a process each.")
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a recipe from data to a deployed, measured engine; a stopped run goes on."""
    from micronet.recipe.resolution import resolve_file

    if cpu and gpu_id is not None:
        raise typer.BadParameter("--cpu and --gpu-id exclude each other.")
    resolved, _ = resolve_file(recipe, changes or [])
    if gpu_id is not None:
        choose_gpus(gpu_id)
    first = int(os.environ.get("RANK", "0")) == 0
    out = out or Path("runs") / Path(recipe).stem
    if first:
        say(f"{recipe}: {counted(len(resolved.recipe.steps), 'step')}, in {out}")
        tell(resolved.remarks)
    from micronet import pipeline

    measured = pipeline.run(resolved, out, fresh=fresh, cpu=cpu)
    if first:
        _print_results(measured, as_json=as_json)
        say(f"The table, checkpoints and engines are in {out}.")
    leave_the_others()


@_command("pack")
def _pack(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or a checkpoint in its steps/.")
    ],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write, .safetensors.")],
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write a quantized model with its integers at their true width, for `load_packed`."""
    from micronet.pipeline.stored import packed_file
    from micronet.storage.files import read_bytes, write_bytes

    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"--out {out}: the file's name must end in .safetensors.")
    file, remarks = packed_file(run)
    packed = read_bytes(file)
    write_bytes(out, packed)
    tell(remarks)
    if as_json:
        print_json({"file": str(out), "size_bytes": len(packed)})
    else:
        print_result(f"{out}  {len(packed) / 1e6:.3f} MB")


_command("deploy")(engines.deploy)
_command("bench")(engines.bench)
_command("eval")(engines.evaluate)


@_command("sensitivity")
def _sensitivity(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    *,
    pruner: Annotated[str, typer.Option(help="The pruner.")] = "normal",
    quantizer: Annotated[
        str | None, typer.Option(help="Quantize each layer alone instead, with this quantizer.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="w_bits=4", help="An option of the quantizer.")
    ] = None,
    fractions: Annotated[
        str, typer.Option(metavar="0.1,0.5", help="What to remove of each layer's channels.")
    ] = "0.1,0.3,0.5,0.7",
    model: Annotated[str | None, engines.MODEL] = None,
    data: Annotated[str | None, engines.DATA] = None,
    task: Annotated[str | None, engines.TASK] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Stay on the CPU.")] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Prune, or quantize, each layer of a run's last float model alone, and measure what is left.

    Prints a table and plots it into the run's folder. Nothing is trained.
    """
    named: dict[str, Any] = {"cpu": cpu, "model": model, "data": data, "task": task}
    if quantizer is not None:
        _each_quantized(run, quantizer, option or [], named, as_json=as_json)
        return
    if option:
        raise typer.BadParameter("--option is the quantizer's, so it needs --quantizer.")
    try:
        wanted = [float(part) for part in fractions.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--fractions {fractions}: write numbers, as in 0.1,0.5."
        ) from None
    from micronet.pipeline.sensitivity import plot, sensitivities

    found = sensitivities(run, pruner, wanted, **named)
    if as_json:
        print_json(attrs.asdict(found))
    else:
        from micronet.pipeline.results import shown_as

        shown = shown_as(found.figure)
        header = ["Pruned alone", *(f"-{fraction:.0%}" for fraction in wanted)]
        body = [
            [", ".join(group.layers), *(shown(group.values[f]) for f in wanted)]
            for group in found.groups
        ]
        name = found.figure.name.replace("_", " ")
        print_result(f"{found.step}: {name} {shown(found.value)}\n")
        print_table(header, body)
    _plotted(lambda file: plot(found, file), run, pruner)


def _each_quantized(
    run: Path, quantizer: str, options: list[str], named: dict[str, Any], *, as_json: bool
) -> None:
    from micronet.pipeline.quantized_alone import plot, quantized_alone

    given = engines.options_of(options, "--option")
    found = quantized_alone(run, quantizer, given, **named)
    if as_json:
        print_json(attrs.asdict(found))
    else:
        from micronet.pipeline.results import shown_as

        shown, title = shown_as(found.figure), found.figure.title
        print_result(f"{found.step}: {found.figure.name.replace('_', ' ')} {shown(found.value)}\n")
        print_table(
            ["Quantized alone", title, "SQNR (dB)"],
            [
                [
                    each.layer,
                    shown(each.value),
                    "-" if each.sqnr_db is None else f"{each.sqnr_db:.1f}",
                ]
                for each in found.layers
            ],
        )
    _plotted(lambda file: plot(found, file), run, quantizer)


def _plotted(draw: Callable[[Path], None], run: Path, technique: str) -> None:
    file = run / f"sensitivity-{technique.replace(':', '-')}.png"
    try:
        draw(file)
    except MicronetError as error:
        tell([str(error)])
    else:
        say(f"Plotted into {file}")


@_command("validate")
def _validate(
    recipe: Annotated[str, _RECIPE], *, changes: Annotated[list[str] | None, _SET] = None
) -> None:
    """Check a recipe without running it, and print it with every option written out.

    Tells all that is wrong with it. Your own model and data are made once and looked at, and every
    step is tried on two images.
    """
    from micronet.recipe.file import dump
    from micronet.recipe.resolution import resolve_file

    resolved, source = resolve_file(recipe, changes or [], here=False)
    if resolved.needs_a_look:
        from micronet.pipeline.first_look import look

        look(resolved, source)
    tell(resolved.remarks)
    print_result(dump(resolved.recipe).rstrip("\n"))


@_command("recipes")
def _recipes(*, as_json: Annotated[bool, JSON] = False) -> None:
    """List the shipped recipes."""
    from micronet.recipe.file import shipped

    recipes = shipped()
    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in recipes.items()])
    else:
        print_table(["Recipe", "What it does"], [list(pair) for pair in recipes.items()])


@_command("schema")
def _schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from micronet.recipe.schema import recipe_schema

    schema = recipe_schema()
    print_json(schema)
    if "$comment" in schema:
        tell([schema["$comment"]])


@_command("list-plugins")
def _list_plugins(
    *,
    kind: Annotated[str | None, typer.Option(help="Only techniques of this kind.")] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """List every technique that is installed, and every plugin that failed to load."""
    from micronet import registry

    entries = registry.list(kind)
    if as_json:
        print_json([attrs.asdict(entry) for entry in entries])
        return
    rows: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        remarks = filter(None, [entry.error, entry.install and f"needs: {entry.install}"])
        owner = f"{entry.distribution} {entry.version}"
        row = (entry.kind or "-", entry.family, owner, entry.status, *remarks)
        rows.setdefault(row, []).append(entry.summary)
    body = [
        [*row[:4], "\n".join(filter(None, [_all_in_one(summaries), *row[4:]]))]
        for row, summaries in rows.items()
    ]
    print_table(["Kind", "Name", "Distribution", "Status", "Summary"], body)


@_command("show")
def _show(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND|ARTIFACT",
            help="As in quantizer, pruner, model; or the folder of a deployed model.",
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The technique.", show_default=False)
    ] = None,
    *,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show a technique's documentation and options, or what a deployed model takes and gives."""
    if name is None:
        if not Path(kind).is_dir():
            raise typer.BadParameter(
                f"{kind}: give the name of a technique too, as in micronet show quantizer iao, or "
                f"the folder of a deployed model."
            )
        engines.show_artifact(Path(kind), as_json=as_json)
        return
    from micronet import registry

    description = registry.describe(kind, name)
    if as_json:
        print_json(attrs.asdict(description))
        return
    print_result(
        f"{kind} {description.name}, from {description.distribution} {description.version}\n"
    )
    print_result(description.doc + "\n")
    rows = [
        [
            option.name,
            option.type,
            "required" if option.required else json.dumps(option.default),
            option.range or "",
            option.doc,
        ]
        for option in description.options
    ]
    print_table(["Option", "Type", "Default", "Range", "Meaning"], rows)


@_command("new-plugin")
def _new_plugin(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="As in quantizer, pruner, model.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The technique's name in recipes.")],
    *,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="The folder to write; micronet-NAME if not given.")
    ] = None,
) -> None:
    """Write a package that installs, with one small working technique and its tests."""
    from micronet.scaffold import new_plugin

    folder = new_plugin(kind, name, directory)
    print_result(str(folder))
    say(
        f"Install it with: pip install -e {folder}\nThen: micronet show {kind} {name}; "
        f"pytest {folder}"
    )


def _print_results(measured: Results, *, as_json: bool) -> None:
    if as_json:
        print_result(measured.to_json().rstrip("\n"))
        return
    print_tables_that_fit(
        [measured.cells()],
        [measured.cells(engines=False), measured.cells(steps=False)],
        [measured.cells(engines=False, types=False), measured.cells(steps=False, types=False)],
        file=results(),
    )
    for note in measured.notes:
        print_result(note)


def _all_in_one(summaries: list[str]) -> str:
    first, *others = summaries
    return f"{len(summaries)} of them, as in: {first}" if others else first
