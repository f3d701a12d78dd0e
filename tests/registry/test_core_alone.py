"""Without any plugin the core still stands, and says what is missing."""

import json

import pytest
from jsonschema import Draft202012Validator

ALONE = {"MICRONET_BLOCK_PLUGINS": "micronet"}


def test_the_core_alone_has_no_technique_and_lists_what_is_blocked(site):
    entries = site.entries(env=ALONE)
    assert {(entry["kind"], entry["status"]) for entry in entries} == {(None, "blocked")}
    assert {"iao", "observers", "pruners", "zoo"} <= {entry["name"] for entry in entries}


@pytest.mark.parametrize("command", ["run", "validate"])
def test_the_core_alone_says_which_technique_a_recipe_lacks(site, command):
    done = site.micronet(command, "quickstart", env=ALONE)
    assert done.returncode == 2
    assert "quickstart:6: There is no pruner 'normal'" in done.stderr
    assert "Plugin 'pruners' of micronet is blocked" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(site.work.iterdir()) == []


def test_the_core_alone_still_has_a_valid_schema(site):
    done = site.micronet("schema", env=ALONE)
    assert done.returncode == 0, done.stderr
    Draft202012Validator.check_schema(json.loads(done.stdout))


def test_third_party_techniques_work_without_the_built_in_ones(site, hook, quantizer):
    site.install(
        "micronet-lsq",
        hook("quantizer", "lsq", "micronet_lsq.technique:Lsq"),
        files={"technique.py": quantizer},
    )
    assert site.micronet("show", "quantizer", "lsq", env=ALONE).returncode == 0
