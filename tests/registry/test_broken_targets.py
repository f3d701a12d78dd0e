"""A technique whose class is not what its kind asks for says so when it is used, not before."""

import pytest

HEAD = "import attrs\nfrom micronet.techniques import Quantizer, Observer\n"
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


@pytest.mark.parametrize("command", [["list-plugins"], ["schema"], ["validate", "quickstart"]])
def test_a_broken_target_harms_nobody(broken, command):
    done = broken.micronet(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "iao" in done.stdout


def test_a_broken_target_shows_its_origin_with_traceback(site, hook):
    site.install(
        "micronet-lsq",
        hook("quantizer", "lsq", "micronet_lsq.technique:Lsq"),
        files={"technique.py": "import not_there_at_all"},
    )
    shown = site.micronet("show", "quantizer", "lsq", "--traceback")
    assert shown.returncode == 2
    assert "micronet_lsq/technique.py" in shown.stderr
