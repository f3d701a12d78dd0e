"""A package that is broken in every way: the program lives, and says what is wrong."""

import pytest


@pytest.fixture(scope="module")
def environment(make_environment, packages):
    made = make_environment("broken")
    made.install(packages / "micronet-broken")
    return made


@pytest.fixture(scope="module")
def told(environment):
    """What list-plugins says is wrong, by name."""
    entries = [e for e in environment.entries() if e["distribution"] == "micronet-broken"]
    return {entry["name"]: entry["error"] or entry["install"] for entry in entries}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("import_error", "RuntimeError: the flux capacitor is empty"),
        ("exits", "exits the process when it is imported (status goodbye)"),
        ("missing", "No module named 'micronet_broken.missing'"),
        ("no_technique", "returned 'lsq', not a micronet.techniques.Technique"),
        ("twice", "names 'doubled' twice"),
        ("tomorrow", "needs the plugin API v2"),
        ("heavy", "for which every command waits; it should import torch inside methods"),
        ("on_gpu", "pip install 'micronet-broken[gpu]'"),
        ("iao", "micronet also has this name; write micronet-broken:iao"),
    ],
)
def test_list_plugins_says_what_is_wrong(told, name, error):
    assert error in told[name]


@pytest.mark.parametrize("name", ["import_error", "exits", "missing", "no_technique", "twice"])
def test_and_how_to_be_rid_of_it(told, name):
    assert told[name].endswith("To remove it: pip uninstall micronet-broken")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain_class", "plain_class' of micronet-broken 0.1.0 is not a quantizer"),
        ("unresolved", "name 'NotAType' is not defined"),
        ("doubled", "There is no quantizer 'doubled'"),
    ],
)
def test_using_what_is_broken_ends_in_a_sentence(environment, name, message):
    done = environment.micronet("show", "quantizer", name)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_everything_else_goes_on(environment):
    assert environment.micronet("validate", "quickstart").returncode == 0
    assert environment.micronet("show", "quantizer", "iao").stdout.startswith(
        "quantizer iao, from micronet "
    )


def test_blocking_the_distribution_leaves_none_of_it(environment):
    entries = environment.entries("-p", "no:micronet-broken")
    found = [e for e in entries if e["distribution"] == "micronet-broken"]
    assert {entry["status"] for entry in found} == {"blocked"}
    assert len(found) == 10
