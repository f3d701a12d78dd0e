"""Whatever only lists, shows or checks ends without torch."""

import pytest

from micronet import registry

BUILT_IN = [
    (entry.kind, entry.name) for entry in registry.list() if entry.distribution == "micronet"
]
COMMANDS = [
    ["--help"],
    ["--version"],
    ["list-plugins"],
    ["list-plugins", "--json"],
    ["schema"],
    ["validate", "quickstart"],
]

RUN_AND_TELL = """
import sys
from micronet.cli import main
for line in {lines!r}:
    sys.argv = ["micronet", *line]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (line, end.code)
heavy = {{"torch", "torchvision", "onnx", "onnxruntime", "openvino", "accelerate", "sklearn"}}
print("loaded:", sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_that_only_looks_loads_no_torch(site, arguments):
    done = site.python(RUN_AND_TELL.format(lines=[arguments]))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded: []"


def test_showing_every_built_in_technique_loads_no_torch(site):
    done = site.python(RUN_AND_TELL.format(lines=[["show", *each] for each in BUILT_IN]))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded: []"
    for kind, name in BUILT_IN:
        assert f"{kind} {name}, from micronet" in done.stdout


def test_every_kind_is_among_the_built_in_techniques():
    assert {kind for kind, _ in BUILT_IN} == {
        "quantizer", "observer", "pruner", "fuser", "deploy_backend", "model", "dataset", "task"
    }  # fmt: skip


def test_importing_micronet_loads_neither_torch_nor_a_plugin(site):
    done = site.python(
        "import sys, micronet\n"
        "print(sorted(n for n in sys.modules if n == 'torch' or n.startswith('micronet')))"
    )
    assert done.stdout == "['micronet']\n"


def test_listing_imports_no_module_of_a_target(site):
    done = site.python(
        "import sys, micronet\n"
        "micronet.registry.list()\n"
        "print([n for n in sys.modules if n.startswith(('micronet_iao.', 'micronet_zoo.'))])"
    )
    assert done.stdout == "[]\n"


def test_creating_a_technique_loads_no_torch(site):
    done = site.python(
        "import sys, micronet\n"
        "print(micronet.registry.create('quantizer', 'iao', w_bits=4).w_bits)\n"
        "print('torch' in sys.modules)"
    )
    assert done.stdout == "4\nFalse\n"
