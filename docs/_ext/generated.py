"""Fills the reference pages from the program itself, so that nothing is described twice.

A page that holds a line such as `<!-- generated: techniques -->` gets that line replaced by
Markdown, made anew at every build. Nothing here imports torch.
"""

import ast
import importlib
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import attrs
import typer.main
from importlinter.api import read_configuration
from picture import picture
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import micronet
from micronet import registry
from micronet.cli.commands import app as micronet_command
from micronet.errors import RecipeError
from micronet.hookspecs import ENTRY_POINT_GROUP
from micronet.options import OptionInfo, describe
from micronet.recipe import (
    STEPS,
    Named,
    Prune,
    Quantize,
    Recipe,
    Train,
    own_fields,
    technique_field,
)
from micronet.recipe.resolution import resolve
from micronet.registry.catalog import BUILT_IN, Entry
from micronet.techniques import KINDS, DeployBackend, Scheme

_MARK = re.compile(r"<!-- generated: (\w+) -->")
_ROOT = Path(__file__).parents[2]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-get-outdated", _pages)
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}


def _pages(app: Sphinx, *_: object) -> list[str]:
    """The pages to make anew: what they are made from is no file that Sphinx watches."""
    return [name for name in app.env.found_docs if "<!-- generated: " in _text(app, name)]


def _text(app: Sphinx, page: str) -> str:
    return Path(app.env.doc2path(page)).read_text("utf-8")


def _fill(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = _MARK.sub(lambda mark: "\n".join(_WRITERS[mark[1]]()), source[0])


def _kinds() -> Iterator[str]:
    rows = [
        [f"`{kind}`", f"`micronet_{kind}s`", f"`{base.__name__}`", _first_sentence(base.__module__)]
        for kind, base in KINDS.items()
    ]
    yield from _table(["Kind", "Hook", "Base class in `micronet.techniques`", "What it is"], rows)


def _techniques() -> Iterator[str]:
    entries = [entry for entry in registry.list() if entry.distribution == BUILT_IN and entry.kind]
    for kind in KINDS:
        yield f"## {kind}\n"
        families: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.kind == kind:
                families.setdefault(entry.family, []).append(entry)
        for family, members in families.items():
            described = registry.describe(kind, members[0].name)
            yield f"### {kind} `{family}`\n"
            if len(members) == 1:
                yield f"{members[0].summary}\n"
            else:
                yield f"{len(members)} names: {', '.join(f'`{m.name}`' for m in members)}.\n"
            yield from _paragraphs(described.doc)
            yield from _options(described.options)


def _engines() -> Iterator[str]:
    """What each deploy backend says of the schemes that people quantize to."""
    names = [
        entry.name
        for entry in registry.list("deploy_backend")
        if entry.distribution == BUILT_IN and entry.status == "ok"
    ]
    backends = [registry.create("deploy_backend", name) for name in names]
    rows = [
        [words, *(_support(backend, scheme) for backend in backends)]
        for words, scheme in _SCHEMES.items()
    ]
    options = [", ".join(f"`{o.name}`" for o in describe(type(each))) for each in backends]
    rows.append(["Its own options", *(each or "none" for each in options)])
    yield from _table(["Weights and activations", *(f"`{name}`" for name in names)], rows)


def _support(backend: DeployBackend, scheme: Scheme) -> str:
    reason = backend.unsuitable(scheme)
    if reason is not None:
        return f"no: {reason}"
    return "fast" if backend.fast and backend.is_fast(scheme) else "yes"


_SCHEMES = {
    "8 bits, activations asymmetric": Scheme(),
    "8 bits, activations symmetric": Scheme(a_symmetric=True),
    "8 bits, one scale a layer": Scheme(per_channel=False),
    "8 bits, weights asymmetric": Scheme(w_symmetric=False),
    "4 bits": Scheme(w_bits=4, a_bits=4),
    "16 bits": Scheme(w_bits=16, a_bits=16),
    "ternary, binary": Scheme(w_bits=1.5, a_bits=1, a_symmetric=True),
    "binary, binary": Scheme(w_bits=1, a_bits=1, a_symmetric=True),
}


def _recipe() -> Iterator[str]:
    defaults = {field.name: field.default for field in attrs.fields(Recipe)}
    rows = [
        [f"`{key}`", "required" if defaults[key] is attrs.NOTHING else _value(defaults[key]), text]
        for key, text in _arguments(Recipe)
    ]
    yield from _table(["Key", "Default", "Meaning"], rows)


def _steps() -> Iterator[str]:
    for name, cls in STEPS.items():
        yield f"### {name}\n"
        yield f"{inspect.cleandoc(cls.__doc__ or '')}\n"
        options = [option for option in describe(cls) if option.name in own_fields(cls)]
        technique = technique_field(cls)
        if technique is not None:
            field, kind = technique
            options = [
                attrs.evolve(
                    option, doc=f"Name of a [{_words(kind)}](techniques.md#{_anchor(kind)})."
                )
                if option.name == field
                else option
                for option in options
            ]
        yield from _options(options)
        if technique is not None:
            yield f"The options of that {_words(technique[1])} stand beside these.\n"


def _order() -> Iterator[str]:
    """Each rule that a recipe of one or two steps can break, as `micronet validate` tells it."""
    ready = {Prune: Prune(pruner="normal"), Quantize: Quantize(quantizer="iao")}
    steps = [ready.get(cls) or cls() for cls in STEPS.values()] + [Train(sparsity=1e-4)]
    told: dict[str, str] = {}
    for length in (1, 2):
        for order in itertools.product(steps, repeat=length):
            try:
                resolve(Recipe(model="nin", data="digits", steps=order))
            except RecipeError as error:
                sparse = " (with `sparsity`)"
                names = [
                    f"`{step.key}`{sparse if getattr(step, 'sparsity', None) else ''}"
                    for step in order
                ]
                for fault in str(error).splitlines():
                    told.setdefault(fault.partition(": ")[2], ", ".join(names))
    yield from _table(
        ["Refused", "Why"], [[order, _sentence(reason)] for reason, order in told.items()]
    )


def _command() -> Iterator[str]:
    command: Any = typer.main.get_command(micronet_command)
    yield "## micronet\n"
    yield f"{command.help}\n"
    yield "```text\nmicronet [OPTIONS] COMMAND [ARGUMENTS]\n```\n"
    yield from _parameters(command)
    for name, sub in command.commands.items():
        arguments = [parameter.metavar for parameter in sub.params if _is_argument(parameter)]
        yield f"## micronet {name}\n"
        yield f"{inspect.cleandoc(sub.help)}\n"
        options = ["[OPTIONS]"] if len(arguments) < len(sub.params) else []
        yield f"```text\n{' '.join(['micronet', name, *arguments, *options])}\n```\n"
        yield from _parameters(sub)


def _parameters(command: Any) -> Iterator[str]:
    rows = []
    for parameter in command.params:
        value = parameter.metavar or ("" if parameter.is_flag else parameter.name.upper())
        spelled = value if _is_argument(parameter) else " ".join([parameter.opts[0], value])
        rows.append([f"`{spelled.strip()}`", parameter.help])
    if rows:
        yield from _table(["Argument or option", "Meaning"], rows)


def _is_argument(parameter: Any) -> bool:
    return not parameter.opts[0].startswith("-")


def _core() -> Iterator[str]:
    """The core's modules; read, not imported, since most of them import torch."""
    root = Path(micronet.__path__[0])
    rows = []
    for file in sorted([*root.glob("*.py"), *root.glob("*/__init__.py")]):
        doc = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        if not file.name.startswith("__") or file.parent != root:
            name = file.parent.name + "/" if file.name == "__init__.py" else file.name
            rows.append([f"`{name}`", " ".join(doc.partition("\n\n")[0].split())])
    yield from _table(["In `micronet/`", "What it does"], rows)


def _contracts() -> Iterator[str]:
    """Of the conformance kit; read, not imported, since it imports torch."""
    root = Path(micronet.__path__[0]) / "testing"
    for kind in ("quantizer", "observer", "pruner", "fuser", "deploy_backend"):
        rows = [
            [f"`{node.name}`", " ".join((ast.get_docstring(node) or "").split())]
            for node in ast.parse((root / f"{kind}.py").read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef) and _is_contract(node)
        ]
        yield from _table([f"Contract of a {kind}", "Promise"], rows)


def _is_contract(node: ast.FunctionDef) -> bool:
    calls = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr == "contract" for call in calls)


def _plugins() -> Iterator[str]:
    points = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.dist is not None]
    rows = [
        [f"`{point.value}`", (inspect.getdoc(point.load()) or "").splitlines()[0]]
        for point in sorted(points, key=lambda point: point.value)
        if point.dist.name == BUILT_IN
    ]
    yield from _table(["In `plugins/`", "What it brings"], rows)


def _imports() -> Iterator[str]:
    """The contracts that import-linter holds."""
    for contract in read_configuration(str(_ROOT / "pyproject.toml"))["contracts_options"]:
        layers = ", ".join(layer.removeprefix("micronet.") for layer in contract.get("layers", []))
        yield f"- {contract['name']}{f': {layers}' if layers else ''}."


def _rooms() -> Iterator[str]:
    configuration = read_configuration(str(_ROOT / "pyproject.toml"))
    yield from picture(configuration["session_options"]["root_packages"])


def _unreleased() -> Iterator[str]:
    """The changelog's fragments; a malformed one ends the build, in towncrier's words."""
    command = ["build", "--draft", "--version", "Latest changes", "--date", "unreleased"]
    done = subprocess.run(  # noqa: S603 (our own words)
        [sys.executable, "-m", "towncrier", *command],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ExtensionError(done.stderr)
    if "\n- " in done.stdout:
        yield done.stdout


def _paragraphs(text: str) -> Iterator[str]:
    """Plain text as Markdown: a line that starts with `1)` is no list, and `*` is a product."""
    for paragraph in text.split("\n\n"):
        yield re.sub(r"([*<])", r"\\\1", " ".join(paragraph.split())) + "\n"


def _options(options: Sequence[OptionInfo]) -> Iterator[str]:
    if not options:
        yield "No options.\n"
        return
    rows = [
        [
            f"`{option.name}`",
            f"`{option.type}`",
            "required" if option.required else _value(option.default),
            option.range or "",
            option.doc,
        ]
        for option in options
    ]
    yield from _table(["Option", "Type", "Default", "Range", "Meaning"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in [header, ["---"] * len(header), *rows]:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _value(value: Any) -> str:
    return f"`{json.dumps(value.name if isinstance(value, Named) else value)}`"


def _arguments(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """The names and meanings below `Args:` in a docstring."""
    _, _, text = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")
    for name, meaning in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, flags=re.MULTILINE):
        yield name, " ".join(meaning.split())


def _first_sentence(module: str) -> str:
    text = inspect.getdoc(importlib.import_module(module)) or ""
    return _sentence(text.splitlines()[0].partition(": ")[2])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _anchor(heading: str) -> str:
    return heading.replace("_", "-")


_WRITERS: dict[str, Callable[[], Iterator[str]]] = {
    "kinds": _kinds,
    "techniques": _techniques,
    "engines": _engines,
    "recipe": _recipe,
    "steps": _steps,
    "order": _order,
    "command": _command,
    "core": _core,
    "contracts": _contracts,
    "plugins": _plugins,
    "rooms": _rooms,
    "imports": _imports,
    "unreleased": _unreleased,
}
