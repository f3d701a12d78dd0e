"""Plugins may print wherever they like: stdout holds results, and nothing else."""

import json

import pytest

NOISE = """
import atexit, io, os, subprocess, sys
from micronet.hookspecs import hookimpl

def make_noise():
    print("noise")
    sys.__stdout__.write("noise by the first stdout\\n")
    os.write(1, b"noise by its number\\n")
    subprocess.run(["echo", "noise by another process"])

make_noise()
sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
print("noise in an encoding")
if "at exit":
    atexit.register(make_noise)

@hookimpl
def micronet_models():
    make_noise()
    return []
"""


@pytest.fixture(scope="module")
def noisy(make_site):
    site = make_site()
    site.install("noisy", NOISE)
    return site


@pytest.mark.parametrize(
    "arguments",
    [
        ["list-plugins", "--json"],
        ["list-plugins"],
        ["schema"],
        ["show", "model", "nin", "--json"],
        ["validate", "quickstart"],
    ],
    ids=" ".join,
)
def test_no_noise_gets_into_results(noisy, micronet_cli, arguments):
    done = noisy.micronet(*arguments)
    assert done.returncode == 0
    assert done.stdout == micronet_cli(*arguments).stdout
    for noise in ("by its number", "by another process"):
        assert done.stderr.count(noise) == 3, done.stderr  # imported, asked, and at exit


def test_a_plugin_that_wraps_stdout_closes_nobodys_stderr(noisy):
    done = noisy.micronet("show", "model", "nun")
    assert done.returncode == 2
    assert "micronet: There is no model 'nun'. Did you mean 'nin'?" in done.stderr


def test_no_noise_of_discovery_gets_into_what_a_program_prints(site):
    site.install("noisy", NOISE.replace("at exit", ""))
    done = site.python(
        "import os, json, attrs\n"
        "from micronet import registry\n"
        "names = [entry.name for entry in registry.list()]\n"
        "print(json.dumps(names), flush=True)\n"
        "os.write(1, b'mine')"
    )
    listed, mine = done.stdout.splitlines()
    assert "iao" in json.loads(listed)
    assert mine == "mine"
