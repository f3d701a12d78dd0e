"""Stdout holds results alone, and neither a lost stdout nor a lost stderr changes the outcome."""

import os
import subprocess
import sys

import pytest

FULL = "/dev/full"


def shell(line):
    """Runs a line in which `$M` stands for micronet."""
    environment = {**os.environ, "M": f"{sys.executable} -m micronet"}
    environment.pop("PYTHONUNBUFFERED", None)
    return subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", ["recipes", "recipes --json", "--version", "run --help"])
def test_a_full_stdout_is_told(command):
    done = shell(f"$M {command} > {FULL}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith(
        "micronet: Can't write stdout: No space left on device."
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["recipes", "--version", "--help"])
def test_a_closed_stdout_is_no_error(command):
    done = shell(f"$M {command} >&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("lost", [f"2> {FULL}", "2>&-"], ids=["full", "closed"])
def test_without_stderr_results_and_exit_codes_are_the_same(lost):
    done = shell(f"$M -p no:nonsense recipes --json {lost}")  # which has a remark to make
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == shell("$M recipes --json").stdout
    refused = shell(f"$M validate nonsense {lost}")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_reader_that_has_enough_ends_the_command_without_a_word():
    done = shell("$M schema | true; exit ${PIPESTATUS[0]}")  # which ends before a schema begins
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_program_that_takes_the_place_of_a_command_has_its_stdout():
    code = (
        "import os\n"
        "from micronet.streams import close_stdout, give_back, take_over\n"
        "take_over()\n"
        "close_stdout()\n"
        "print('to stderr')\n"
        "give_back()\n"
        "os.execv('/bin/echo', ['echo', 'to stdout'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("to stdout\n", "to stderr\n")


def test_what_only_a_terminal_would_obey_is_shown_instead(micronet_cli):
    done = micronet_cli("validate", "\x1b[2Jnonsense\u202e")
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
