"""A third party's techniques stand beside the built-in ones, everywhere."""

import json

import pytest
from jsonschema import Draft202012Validator

CLASSES = """
import attrs
from micronet.options import option
from micronet.techniques import {base}

@attrs.frozen(kw_only=True)
class Acme({base}):
    '''What acme makes.'''

    level: int = option(1, ge=1, le=9, doc="How much of it.")
{methods}
"""
METHODS = {
    "quantizer": ("Quantizer", ["prepare"]),
    "observer": ("Observer", ["build"]),
    "pruner": ("Pruner", ["prune"]),
    "fuser": ("Fuser", ["fuse"]),
    "deploy_backend": ("DeployBackend", ["available", "export", "load"]),
    "model": ("Model", ["build"]),
    "dataset": ("Dataset", ["load"]),
}


@pytest.fixture
def every_kind(site):
    """A distribution with a technique of each kind, all of the same name."""
    plugin = "from micronet.hookspecs import hookimpl\nfrom micronet.techniques import Technique\n"
    files = {}
    for kind, (base, methods) in METHODS.items():
        plugin += (
            f"@hookimpl\ndef micronet_{kind}s():\n"
            f"    return [Technique('acme', 'A {kind}.', 'acme_tools.{kind}:Acme')]\n"
        )
        body = "".join(f"\n    def {name}(self, *args, **kwargs): ...\n" for name in methods)
        files[f"{kind}.py"] = CLASSES.format(base=base, methods=body)
    site.install("acme-tools", plugin, files=files)
    return site


def test_a_technique_of_each_kind_is_listed_with_its_distribution(every_kind):
    found = [entry for entry in every_kind.entries() if entry["distribution"] == "acme-tools"]
    assert found == [
        {
            "kind": kind,
            "name": "acme",
            "distribution": "acme-tools",
            "version": "1.0",
            "summary": f"A {kind}.",
            "status": "ok",
            "error": None,
            "install": None,
        }
        for kind in METHODS
    ]


def test_a_technique_of_each_kind_is_got_and_created_by_name(every_kind):
    done = every_kind.python(
        "from micronet import registry\n"
        f"for kind in {list(METHODS)}:\n"
        "    cls = registry.get(kind, 'acme')\n"
        "    assert registry.get(kind, 'acme-tools:acme') is cls\n"
        "    made = registry.create(kind, 'acme', level=7)\n"
        "    assert type(made) is cls\n"
        "    print(cls.__module__, made.level)"
    )
    expected = [f"acme_tools.{kind} 7" for kind in METHODS]
    assert done.stdout.splitlines() == expected, done.stderr


def test_a_third_partys_technique_shows_its_options(every_kind):
    done = every_kind.micronet("show", "pruner", "acme", "--json")
    shown = json.loads(done.stdout)
    assert (shown["distribution"], shown["doc"]) == ("acme-tools", "What acme makes.")
    assert shown["options"] == [
        {
            "name": "level",
            "type": "int",
            "default": 1,
            "required": False,
            "range": "between 1 and 9",
            "doc": "How much of it.",
        }
    ]


def test_a_recipe_uses_a_third_partys_quantizer_and_checks_its_options(site, hook, quantizer):
    site.install(
        "micronet-lsq",
        hook("quantizer", "lsq", "micronet_lsq.technique:Lsq"),
        files={"technique.py": quantizer},
    )
    (site.work / "mine.yaml").write_text(
        "model: nin\ndata: digits\nrequires: ['micronet-lsq>=0.2']\nsteps:\n"
        "  - quantize: {quantizer: lsq, bits: 3}\n  - train\n"
    )
    good = site.micronet("validate", "mine.yaml")
    assert (good.returncode, "bits: 3" in good.stdout) == (0, True), good.stderr
    bad = site.micronet("validate", "mine.yaml", "--set", "steps.0.quantize.bits=9")
    assert bad.returncode == 2
    assert "bits must be between 2 and 8, got 9" in bad.stderr


def test_the_schema_knows_a_third_partys_options(site, hook, quantizer):
    site.install(
        "micronet-lsq",
        hook("quantizer", "lsq", "micronet_lsq.technique:Lsq"),
        files={"technique.py": quantizer},
    )
    validator = Draft202012Validator(json.loads(site.micronet("schema").stdout))
    recipe = {"model": "nin", "data": "digits"}
    for options, fits in (({"bits": 3}, True), ({"bits": 9}, False), ({"bit": 3}, False)):
        step = {"quantize": {"quantizer": "lsq", **options}}
        assert validator.is_valid({**recipe, "steps": [step]}) is fits


ODD_OPTIONS = {
    "a default made by a factory": "names: dict = attrs.field(factory=dict)",
    "a default that JSON does not know": "where: Path = attrs.field(default=Path('x'))",
    "an annotation that does not resolve": "images: 'Tensor' = attrs.field(default=None)",
}


@pytest.mark.parametrize("option", ODD_OPTIONS.values(), ids=ODD_OPTIONS.keys())
@pytest.mark.parametrize("command", [["schema"], ["show", "fuser", "odd"]], ids=" ".join)
def test_an_option_that_json_does_not_know_ends_no_command_with_a_traceback(
    site, hook, option, command
):
    technique = f"""
from __future__ import annotations
from pathlib import Path
import attrs
from micronet.techniques import Fuser

@attrs.frozen(kw_only=True)
class Odd(Fuser):
    {option}

    def fuse(self, model, example_inputs): ...
"""
    site.install(
        "odd-options",
        hook("fuser", "odd", "odd_options.technique:Odd"),
        files={"technique.py": technique},
    )
    done = site.micronet(*command)
    assert "Traceback" not in done.stderr, done.stderr
    if command == ["schema"]:
        assert done.returncode == 0
        assert '"iao"' in done.stdout
