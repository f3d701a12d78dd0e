"""What a plugin does to the process while it is discovered is undone; others are found as ever."""

import sys

import pytest

from micronet.registry import Catalog
from micronet.registry.discovery import Plugin
from micronet.techniques import Technique

DISTURBING = """
import logging, os, signal, sys, warnings
from micronet.hookspecs import hookimpl

def disturb():
    os.environ.clear()
    os.environ["OMP_NUM_THREADS"] = "77"
    os.chdir("/")
    sys.path[:] = ["added"]
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.setrecursionlimit(150)
    sys.excepthook = None
    warnings.simplefilter("error")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=1, force=True)
    logging.disable(100)

disturb()

@hookimpl
def micronet_models():
    disturb()
    os.close(2)
    return []
"""

STATE = """
import json, logging, os, signal, sys, warnings
from micronet import registry

def state():
    return [
        dict(os.environ), os.getcwd(), [p for p in sys.path if p != "added"], len(sys.meta_path),
        len(sys.path_hooks), sys.getrecursionlimit(), sys.excepthook, warnings.filters[:],
        signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
        logging.root.handlers[:], logging.root.level, logging.root.manager.disable,
    ]

before = state()
registry.list()
after = state()
assert sys.path[-1] == "added"
print([a == b for a, b in zip(before, after)])
os.write(2, b"stderr is there")
"""

DIES = """
class Dies(BaseException):
    def __str__(self):
        raise self
    __repr__ = __str__
raise Dies
"""


@pytest.fixture(scope="module")
def disturbed(make_site):
    site = make_site()
    site.install("a-disturbing", DISTURBING)
    site.install("a-dying", DIES)
    return site


def test_the_process_is_as_it_was(disturbed):
    done = disturbed.python(STATE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{[True] * 13}\n"
    assert done.stderr == "stderr is there"


def test_those_that_come_later_are_found(disturbed, site):
    names = {entry["name"]: entry["error"] for entry in disturbed.entries()}
    assert names.pop("a_dying") == "Dies. To remove it: pip uninstall a-dying"
    assert names == {entry["name"]: entry["error"] for entry in site.entries()}


def test_ten_thousand_techniques_are_listed_with_little_work():
    techniques = tuple(Technique(f"t{i}", "One of many.", "many:One") for i in range(10_000))
    catalog = Catalog([Plugin("many", "many", "1.0", "ok", {"pruner": techniques})])
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        entries = catalog.list()
    finally:
        sys.setprofile(None)
    assert len(entries) == 10_000
    assert calls < 1_000_000
