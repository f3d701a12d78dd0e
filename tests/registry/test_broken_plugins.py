"""A broken plugin is listed with its error and its remedy, and harms nobody."""

import shutil
from importlib.metadata import version

import pytest

VERSION = version("micronet")

NO_TECHNIQUE = """
from micronet.hookspecs import hookimpl

@hookimpl
def {hook}({arguments}):
    return {result}
"""


def returning(result, hook="micronet_quantizers", arguments=""):
    return NO_TECHNIQUE.format(hook=hook, arguments=arguments, result=result)


TWICE = """
from micronet.hookspecs import hookimpl
from micronet.techniques import Technique

@hookimpl
def micronet_models():
    return [Technique("same", "One.", "a:A"), Technique("same", "Two.", "b:B")]
"""

UNPRINTABLE = """
class Unprintable(Exception):
    def __str__(self):
        raise self
    __repr__ = __str__

"""


def technique(*arguments):
    return "from micronet.techniques import Technique\n" + returning(
        f"[Technique({', '.join(arguments)})]"
    )


BROKEN = {
    "a syntax error": ({"plugin": "def ("}, "SyntaxError"),
    "a missing dependency": (
        {"plugin": "import not_there_at_all"},
        "ModuleNotFoundError: No module named 'not_there_at_all'",
    ),
    "an error while importing": ({"plugin": "1 / 0"}, "ZeroDivisionError: division by zero"),
    "a process that exits": (
        {"plugin": "import sys\nsys.exit(3)"},
        "exits the process when it is imported (status 3)",
    ),
    "an unknown hook": (
        {"plugin": returning("[]", hook="micronet_quantizerz")},
        "micronet_quantizerz",
    ),
    "a hook with arguments that nobody gives": (
        {"plugin": returning("[]", arguments="config")},
        "config",
    ),
    "a hook that raises": ({"plugin": returning("[][0]")}, "IndexError"),
    "a hook that returns something else": (
        {"plugin": returning("['lsq']")},
        "micronet_quantizers returned 'lsq', not a micronet.techniques.Technique",
    ),
    "a hook that returns no list": (
        {"plugin": returning("7")},
        "micronet_quantizers returned 7, not a list",
    ),
    "a target that is no target": (
        {
            "plugin": "from micronet.techniques import Technique\n"
            "Technique('lsq', 'Learned.', 'no colon')"
        },
        "ValueError",
    ),
    "an error that can't be printed": (
        {"plugin": UNPRINTABLE + "raise Unprintable"},
        " Unprintable. To remove",
    ),
    "an exit with a status that can't be printed": (
        {"plugin": UNPRINTABLE + "raise SystemExit(Unprintable())"},
        "exits the process when it is imported",
    ),
    "a result that can't be printed": (
        {
            "plugin": UNPRINTABLE.format(raised="0").replace("raise 0", "")
            + returning("Unprintable()")
        },
        " Unprintable. To remove",
    ),
    "an extra that is no text": (
        {"plugin": technique("'lsq'", "'Learned.'", "'a:A'", "['gpu']")},
        "the extra of a Technique must be a text, got ['gpu']",
    ),
    "a summary that is no text": (
        {"plugin": technique("'lsq'", "7", "'a:A'")},
        "the summary of a Technique must be a text, got 7",
    ),
    "a name that no terminal should print": (
        {"plugin": technique(r"'\x1b[2Jlsq'", "'Learned.'", "'a:A'")},
        r"the name of a Technique can't be printed, '\x1b[2Jlsq'",
    ),
    "a name given twice": ({"plugin": TWICE}, "micronet_models names 'same' twice"),
    "another plugin API": (
        {"plugin": "", "group": "micronet.plugins.v2"},
        f"needs the plugin API v2; micronet {VERSION} speaks v1",
    ),
    "a newer core": (
        {"plugin": "", "requires": ["micronet>=99"]},
        f"needs micronet >=99, found {VERSION}",
    ),
}


@pytest.fixture(scope="module")
def all_broken(make_site):
    """All of them side by side, each in a distribution of its own: broken-0, broken-1 and so on."""
    site = make_site()
    for index, (arguments, _) in enumerate(BROKEN.values()):
        site.install(f"broken-{index}", **arguments)
    return site


@pytest.fixture(scope="module")
def listing(all_broken):
    return all_broken.micronet("list-plugins")


@pytest.mark.parametrize("index", range(len(BROKEN)), ids=BROKEN)
def test_a_broken_plugin_is_listed_with_its_error_and_the_line_that_removes_it(listing, index):
    (line,) = [line for line in listing.stdout.splitlines() if f" broken-{index} 1.0 " in line]
    assert " failed " in line
    assert list(BROKEN.values())[index][1] in line
    assert line.rstrip().endswith(f"To remove it: pip uninstall broken-{index}")


def test_beside_broken_plugins_the_others_are_listed(listing):
    assert (listing.returncode, listing.stderr) == (0, "")
    assert "Affine integer weights" in listing.stdout


@pytest.mark.parametrize("command", [["validate", "quickstart"], ["show", "model", "nin"]])
def test_beside_broken_plugins_everything_else_works(all_broken, command):
    done = all_broken.micronet(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "num_classes" in done.stdout


def test_a_broken_plugin_is_told_to_programs_too(site):
    site.install("broken-plugin", "1 / 0", point="breaks")
    (entry,) = [entry for entry in site.entries() if entry["distribution"] == "broken-plugin"]
    assert entry == {
        "kind": None,
        "name": "breaks",
        "distribution": "broken-plugin",
        "version": "1.0",
        "summary": "",
        "status": "failed",
        "error": "ZeroDivisionError: division by zero. To remove it: pip uninstall broken-plugin",
        "install": None,
    }


def test_a_plugin_for_another_core_is_not_imported(site):
    site.install("eager", "open('imported', 'w').close()", requires=["micronet>=99"])
    site.entries()
    assert list(site.work.iterdir()) == []


def test_a_recipe_that_needs_a_broken_plugin_fails_with_the_original_cause(site):
    site.install("micronet-lsq", "raise RuntimeError('no luck today')")
    (site.work / "mine.yaml").write_text(
        "model: nin\ndata: digits\nsteps:\n  - quantize: {quantizer: lsq}\n  - train\n"
    )
    quiet = site.micronet("validate", "mine.yaml")
    assert quiet.returncode == 2
    assert "mine.yaml:4: There is no quantizer 'lsq'" in quiet.stderr
    assert "of micronet-lsq failed: RuntimeError: no luck today" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    loud = site.micronet("--traceback", "validate", "mine.yaml")
    assert loud.returncode == 2
    assert "micronet_lsq/__init__.py" in loud.stderr


def test_strict_mode_raises_a_plugins_own_error(site):
    site.install("micronet-lsq", "raise RuntimeError('no luck today')")
    done = site.micronet("list-plugins", env={"MICRONET_STRICT_PLUGINS": "1"})
    assert done.returncode != 0
    assert "micronet_lsq/__init__.py" in done.stderr
    assert "RuntimeError: no luck today" in done.stderr


def test_strict_mode_is_off_unless_it_is_1(site):
    site.install("micronet-lsq", "raise RuntimeError('no luck today')")
    assert site.micronet("list-plugins", env={"MICRONET_STRICT_PLUGINS": "0"}).returncode == 0


def test_two_broken_plugins_are_both_listed(site):
    site.install("broken-one", "1 / 0")
    site.install("broken-two", "import not_there_at_all")
    failed = {e["distribution"] for e in site.entries() if e["status"] == "failed"}
    assert failed == {"broken-one", "broken-two"}


def test_a_plugin_whose_files_are_gone_is_listed_as_failed(site):
    site.install("half-gone", "")
    shutil.rmtree(site.folder / "half_gone")
    (entry,) = [entry for entry in site.entries() if entry["distribution"] == "half-gone"]
    assert entry["status"] == "failed"
    assert "No module named 'half_gone'" in entry["error"]


def test_a_distribution_that_lost_its_metadata_harms_nobody(site):
    site.install("half-gone", "")
    (site.folder / "half_gone-1.0.dist-info" / "METADATA").unlink()
    assert "iao" in {entry["name"] for entry in site.entries()}


def test_a_malformed_list_of_entry_points_harms_nobody(site):
    site.install("half-gone", "")
    info = site.folder / "half_gone-1.0.dist-info"
    (info / "entry_points.txt").write_text("[micronet.plugins.v1]\nhalf_gone\n")
    assert "iao" in {entry["name"] for entry in site.entries()}
