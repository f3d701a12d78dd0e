"""A blocked plugin is not even imported."""

import pytest

EAGER = "open('imported', 'w').close()\n"


@pytest.fixture
def eager(site, hook):
    site.install("acme-tools", EAGER + hook("observer", "acme", "a:A"), point="acme")
    return site


@pytest.mark.parametrize("name", ["acme", "acme-tools", "ACME_Tools"])
def test_a_plugin_is_blocked_on_the_command_line_before_it_is_imported(eager, name):
    done = eager.micronet("-p", f"no:{name}", "list-plugins")
    assert (done.returncode, "blocked before import" in done.stdout) == (0, True)
    assert not (eager.work / "imported").exists()


@pytest.mark.parametrize("value", ["acme", "acme-tools", "other, acme ,"])
def test_a_plugin_is_blocked_by_the_environment_before_it_is_imported(eager, value):
    entries = eager.entries(env={"MICRONET_BLOCK_PLUGINS": value})
    (entry,) = [entry for entry in entries if entry["distribution"] == "acme-tools"]
    assert (entry["status"], entry["name"], entry["kind"]) == ("blocked", "acme", None)
    assert not (eager.work / "imported").exists()


def test_without_a_block_the_same_plugin_is_imported(eager):
    assert "acme" in {e["name"] for e in eager.entries() if e["kind"] == "observer"}
    assert (eager.work / "imported").exists()


def test_a_block_on_the_command_line_adds_to_the_environments(eager):
    done = eager.micronet("-p", "no:iao", "list-plugins", env={"MICRONET_BLOCK_PLUGINS": "acme"})
    assert done.stdout.count("blocked before import") == 2
    assert not (eager.work / "imported").exists()


def test_several_plugins_are_blocked_at_once(site):
    done = site.micronet("-p", "no:iao", "-p", "no:zoo", "list-plugins")
    assert done.stdout.count("blocked before import") == 2


def test_a_broken_plugin_that_is_blocked_does_not_count_as_broken(site):
    site.install("broken-plugin", "1 / 0")
    strict = {"MICRONET_STRICT_PLUGINS": "1", "MICRONET_BLOCK_PLUGINS": "broken-plugin"}
    assert site.micronet("list-plugins", env=strict).returncode == 0


def test_a_technique_of_a_blocked_plugin_says_that_it_is_blocked(site):
    done = site.micronet("-p", "no:iao", "show", "quantizer", "iao")
    assert done.returncode == 2
    assert "Plugin 'iao' of micronet is blocked" in done.stderr


@pytest.mark.parametrize("value", ["iao", "no:", "yes:iao"])
def test_a_block_that_is_written_wrongly_is_refused(site, value):
    done = site.micronet("-p", value, "list-plugins")
    assert done.returncode == 2
    assert "no:NAME" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_block_of_nothing_is_told(site):
    done = site.micronet("-p", "no:aio", "list-plugins")
    assert done.returncode == 0
    assert "-p no:aio blocks nothing" in done.stderr
    assert "Did you mean 'iao'?" in done.stderr
