"""Every name of TensorRT that the plugin uses is in the published bindings, old and new.

The bindings are read as data: TensorRT's libraries, which they load, are not needed. That a name is
there does not tell that it does what we think. Run by `pytest -m bindings`, with a network.
"""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import micronet_tensorrt
import pytest

pytestmark = pytest.mark.bindings

VERSIONS = {
    "10, oldest": "tensorrt_cu12_bindings==10.0.1",
    "10, newest": "tensorrt_cu12_bindings>=10.16,<11",
    "11, newest": "tensorrt_cu13_bindings>=11,<12",
}
PLATFORM = [
    "--only-binary=:all:",
    "--python-version=3.11",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_17_x86_64",
]


@pytest.fixture(autouse=True)
def asked_for(request):
    if "bindings" not in request.config.option.markexpr:
        pytest.skip("it reads packages off the index; run by -m bindings")


@pytest.fixture(scope="module", params=VERSIONS)
def known(request, tmp_path_factory):
    """Says whether bindings hold a name."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *PLATFORM]
    command += ["--dest", str(folder), VERSIONS[request.param]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{VERSIONS[request.param]} can't be had: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        compiled = archive.read("tensorrt_bindings/tensorrt.so")
        written = archive.read("tensorrt_bindings/__init__.py")
    # The linker keeps a string that ends another one inside it, so only its end is sure.
    return lambda name: name.encode() + b"\0" in compiled or name.encode() in written


def names_used():
    """What the plugin reads of, or gives by keyword to, objects that come from tensorrt."""
    used = set()
    for path in Path(micronet_tensorrt.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        theirs = {"trt", "tensorrt"}
        while found := {name for node in ast.walk(tree) for name in held(node, theirs)} - theirs:
            theirs |= found
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and root(node.value) in theirs:
                used.add(node.attr)
            if isinstance(node, ast.Call) and root(node.func) in theirs:
                used |= {keyword.arg for keyword in node.keywords}
    return sorted(used - set(dir(str)))


def root(node):
    """The variable, or attribute of self, that a chain of calls and attributes begins with."""
    while isinstance(node, (ast.Attribute, ast.Call)):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "self":
            return node.attr
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", None)


def held(node, theirs):
    """Names that an assignment, or a call of a function of ours, gives to objects of theirs."""
    if isinstance(node, ast.Assign):
        pairs = [(node.targets[0], node.value)]
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = zip(node.targets[0].elts, node.value.elts, strict=True)
        for target, value in pairs:
            if root(value) in theirs and isinstance(target, (ast.Name, ast.Attribute)):
                yield root(target)


def test_what_the_plugin_uses_is_found_in_its_source():
    used = names_used()
    for name in ("execute_async_v3", "STRONGLY_TYPED", "ignore_mismatch", "serialize", "node_name"):
        assert name in used
    assert "memcpy_htod_async" not in used


def test_every_name_is_in_the_bindings(known):
    used = names_used()
    assert len(used) > 35
    assert [name for name in used if not known(name)] == []


def test_a_name_that_is_in_no_bindings_is_not_found(known):
    assert not known("execute_async_v4")


def test_what_11_has_removed_is_not_used():
    removed = {"EXPLICIT_BATCH", "int8_calibrator", "set_calibration_profile", "FP16", "INT8"}
    removed |= {"platform_has_fast_int8", "set_dynamic_range", "precision", "set_output_type"}
    assert removed.isdisjoint(names_used())
