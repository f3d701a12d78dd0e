"""A technique whose class is not what its kind asks for says so when it is used, not before."""

import json

import pytest

HEAD = "import attrs\nfrom micronet.techniques import Quantizer, Observer\n"
PREPARES = """
@attrs.define
class Lsq(Quantizer):
    {field}
    def prepare(self, model, example_inputs): ...
"""
TARGETS = {
    "a missing dependency": (
        "import not_there_at_all",
        "does not load: ModuleNotFoundError: No module named 'not_there_at_all'",
    ),
    "an exit": ("import sys\nsys.exit(1)", "does not load: SystemExit"),
    "no such class": ("", "does not load: AttributeError"),
    "no class": ("Lsq = 3", "must derive from Quantizer"),
    "a class of another kind": (
        HEAD + "@attrs.frozen\nclass Lsq(Observer):\n    def build(self, axis=None): ...",
        "is not a quantizer",
    ),
    "a class without attrs": (
        HEAD + "class Lsq(Quantizer):\n    def prepare(self, model, example_inputs): ...",
        "must be an attrs class",
    ),
    "an abstract class": (HEAD + "@attrs.frozen\nclass Lsq(Quantizer): ...", "prepare"),
    "an error that can't be printed": (
        "class Unprintable(Exception):\n    def __str__(self): raise self\nraise Unprintable",
        "does not load: Unprintable.",
    ),
    "a default that raises": (
        HEAD + PREPARES.format(field="bits: int = attrs.field(factory=lambda: 1 / 0)"),
        "can't be described: ZeroDivisionError: division by zero.",
    ),
    "an option without a type": (
        HEAD + PREPARES.format(field="bits = attrs.field(default=4)"),
        "can't be described: The option 'bits' of Lsq has no type.",
    ),
    "a type that does not resolve": (
        HEAD + PREPARES.format(field="bits: 'Nonsense' = 4"),
        "name 'Nonsense' is not defined.",
    ),
    "documentation that is no text": (
        HEAD + PREPARES.format(field="__doc__ = 7"),
        "can't be described: AttributeError",
    ),
}


@pytest.fixture(scope="module")
def broken(make_site):
    """A distribution with all of them: broken0, broken1 and so on."""
    plugin = (
        "from micronet.hookspecs import hookimpl\nfrom micronet.techniques import Technique\n"
        "@hookimpl\ndef micronet_quantizers():\n    return [\n"
    )
    files = {}
    for index, (code, _) in enumerate(TARGETS.values()):
        plugin += f"        Technique('broken{index}', 'Lsq.', 'micronet_lsq.m{index}:Lsq'),\n"
        files[f"m{index}.py"] = code
    site = make_site()
    site.install("micronet-lsq", plugin + "    ]\n", files=files)
    return site


@pytest.mark.parametrize("index", range(len(TARGETS)), ids=TARGETS)
def test_a_broken_target_is_told_when_it_is_used(broken, index):
    shown = broken.micronet("show", "quantizer", f"broken{index}")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert f"quantizer 'broken{index}' of micronet-lsq 1.0" in shown.stderr
    assert list(TARGETS.values())[index][1] in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("command", [["list-plugins"], ["validate", "quickstart"]])
def test_a_broken_target_harms_nobody(broken, command):
    done = broken.micronet(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "iao" in done.stdout


def test_the_schema_says_whom_it_leaves_out(broken):
    done = broken.micronet("schema")
    assert done.returncode == 0
    comment = json.loads(done.stdout)["$comment"]
    assert done.stderr == f"micronet: {comment}\n"
    for index, (_, words) in enumerate(TARGETS.values()):
        assert f"quantizer 'broken{index}' of micronet-lsq 1.0" in comment
        assert words in comment
    assert "iao" in done.stdout


ODD = """
@attrs.frozen(kw_only=True)
class Lsq(Quantizer):
    'Learned \\x1b[2Jsteps.'

    bits: typing.Literal[b'4', 2.5] = option(2.5, doc='Of \\x9b2Jeach.')
    step: float = attrs.field(default=float('nan'), validator=lambda *_: {raised})

    def prepare(self, model, example_inputs): ...
"""


@pytest.fixture
def odd(site, hook):
    code = HEAD + "import typing\nfrom micronet.options import option\n"
    summary = "Learned \x1b[31msteps\u202e."
    site.install(
        "micronet-lsq",
        hook("quantizer", "lsq", "micronet_lsq.technique:Lsq", summary=summary),
        files={"technique.py": code + ODD.format(raised="1 / 0")},
    )
    return site


def test_options_that_json_does_not_know_leave_the_others_their_schema(odd):
    done = odd.micronet("schema")
    assert "quantizer 'lsq' of micronet-lsq 1.0 has options that no schema can tell" in done.stderr
    json.loads(done.stdout, parse_constant=pytest.fail)


def test_what_a_terminal_would_obey_is_printed_as_it_is_written(odd):
    told = [odd.micronet("list-plugins"), odd.micronet("show", "quantizer", "lsq")]
    assert [done.returncode for done in told] == [0, 0]
    printed = "".join(done.stdout + done.stderr for done in told)
    assert r"Learned \x1b[31msteps\u202e." in printed
    assert r"Learned \x1b[2Jsteps." in printed
    assert r"Of \x9b2Jeach." in printed
    assert not set(printed) & {"\x1b", "\x9b", "\u202e"}


def test_a_validator_that_raises_is_told_with_its_technique(odd):
    (odd.work / "r.yaml").write_text(
        "model: nin\ndata: digits\nsteps: [quantize: {quantizer: lsq}, train]\n"
    )
    done = odd.micronet("validate", "r.yaml")
    assert done.returncode == 2
    assert "r.yaml:3: quantizer 'lsq' refuses its options: ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_target_shows_its_origin_with_traceback(site, hook):
    site.install(
        "micronet-lsq",
        hook("quantizer", "lsq", "micronet_lsq.technique:Lsq"),
        files={"technique.py": "import not_there_at_all"},
    )
    shown = site.micronet("show", "quantizer", "lsq", "--traceback")
    assert shown.returncode == 2
    assert "micronet_lsq/technique.py" in shown.stderr
