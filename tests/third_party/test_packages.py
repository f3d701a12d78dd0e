"""Packages of third parties, with no line about them in the core, from pip to the engine."""

import json

import pytest

RECIPE = """
model: {name: stripe_net, width: 24}
data: stripes
requires: ["micronet-lsq>=0.2", "micronet-filter-norm"]
steps:
  - train: {epochs: 4, lr: 0.01}
  - prune: {pruner: filter_norm, percent: 0.4}
  - train: {epochs: 2, lr: 0.01}
  - quantize: {quantizer: lsq, w_bits: 4}
  - train: {epochs: 3, lr: 0.002}
  - fuse
  - deploy
"""


@pytest.fixture(scope="module")
def environment(make_environment, packages):
    made = make_environment("packages")
    made.install(packages / "micronet-lsq", packages / "micronet-filter-norm")
    (made.work / "third.yaml").write_text(RECIPE, "utf-8")
    return made


@pytest.fixture(scope="module")
def run(environment):
    """The rows of a run of the recipe."""
    done = environment.micronet("run", "third.yaml", "--out", "run", "--cpu", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


def test_their_techniques_go_from_data_to_a_measured_engine(run):
    *_, trained, _, engine = run
    assert [row["step"].partition("-")[2] for row in run] == [
        *("train", "prune", "train", "quantize", "train", "fuse", "deploy")
    ]
    assert run[1]["params_m"] < 0.8 * run[0]["params_m"]
    assert (trained["w_bits"], trained["a_bits"]) == (4, 8)
    assert engine["accuracy"] > 0.9
    assert engine["parity"] >= 0.995


def test_the_same_model_is_deployed_to_openvino(run, environment):
    pytest.importorskip("openvino", reason="openvino is not installed")
    done = environment.micronet("deploy", "run", "--backend", "openvino", "--cpu", "--json")
    assert done.returncode == 0, done.stderr
    deployed = json.loads(done.stdout)
    assert deployed["accuracy"] == run[-1]["accuracy"]
    assert deployed["parity"]["top1"] >= 0.995


def test_tensorrt_refuses_its_unsigned_activations_and_takes_it_in_float16(run, environment):
    (environment.work / "gpu.yaml").write_text(
        f"{RECIPE.rstrip()}: {{backend: tensorrt}}\n", "utf-8"
    )
    done = environment.micronet("validate", "gpu.yaml")
    assert done.returncode == 2
    assert "zero point 0, not on asymmetric activations" in done.stderr
    code = (
        "from pathlib import Path\n"
        "import torch, micronet\n"
        "from micronet.registry import create\n"
        "model = micronet.load_packed('run/steps/06-fuse.packed.safetensors')\n"
        "backend = create('deploy_backend', 'tensorrt', precision='fp16')\n"
        "backend.write_graph(model, (torch.zeros(1, 3, 16, 16),), Path('gpu.onnx'))"
    )
    done = environment.run(["-c", code])  # which refuses what the lint finds
    assert done.returncode == 0, done.stderr


def test_a_trained_step_moves(run, environment):
    code = (
        "from safetensors.torch import load_file\n"
        "states = [load_file(f'run/steps/0{n}.safetensors') for n in ('4-quantize', '5-train')]\n"
        "steps = [k for k in states[0] if k.endswith('weight_quantizer.step')]\n"
        "print(len(steps), all(bool(states[0][k] != states[1][k]) for k in steps))"
    )
    assert environment.run(["-c", code]).stdout.split() == ["4", "True"]


def test_their_models_are_packed_at_their_true_width(run, environment):
    done = environment.micronet("pack", "run", "-o", "packed.safetensors", "--json")
    size = json.loads(done.stdout)["size_bytes"]
    weights = run[-2]["params_m"] * 1e6
    assert size < 0.75 * weights + 4000  # 4 bits a weight, and biases, scales and names
    code = (
        "import torch, micronet\n"
        "print(tuple(micronet.load_packed('packed.safetensors')(torch.zeros(1, 3, 16, 16)).shape))"
    )
    assert environment.run(["-c", code]).stdout.strip() == "(1, 3)"


@pytest.mark.parametrize(
    "check",
    [
        "check_quantizer(create('quantizer', 'lsq', w_bits=3, a_bits=4))",
        "check_pruner(create('pruner', 'filter_norm', percent=0.4))",
    ],
)
def test_they_keep_every_contract(environment, check):
    code = f"from micronet.registry import create\nfrom micronet.testing import *\n{check}"
    done = environment.run(["-c", code])
    assert done.returncode == 0, done.stderr


def test_they_are_listed_and_shown(environment):
    found = {(e["kind"], e["name"]) for e in environment.entries() if "-" in e["distribution"]}
    assert found == {
        ("quantizer", "lsq"),
        ("pruner", "filter_norm"),
        ("model", "stripe_net"),
        ("dataset", "stripes"),
    }
    shown = json.loads(environment.micronet("show", "quantizer", "lsq", "--json").stdout)
    assert [option["name"] for option in shown["options"]] == ["w_bits", "a_bits"]


def test_a_blocked_one_is_named_by_the_recipe_that_needs_it(environment):
    done = environment.micronet("-p", "no:lsq", "validate", "third.yaml")
    assert done.returncode == 2
    assert "There is no quantizer 'lsq'" in done.stderr
    assert "Plugin 'lsq' of micronet-lsq is blocked" in done.stderr
    assert "third.yaml:" in done.stderr


def test_a_removed_one_is_told_with_the_line_that_brings_it_back(make_environment, packages):
    alone = make_environment("removed")
    alone.install(packages / "micronet-lsq", packages / "micronet-filter-norm")
    alone.uninstall("micronet-lsq")
    (alone.work / "third.yaml").write_text(RECIPE, "utf-8")
    assert all(entry["name"] != "lsq" for entry in alone.entries())
    done = alone.micronet("validate", "third.yaml")
    assert done.returncode == 2
    assert "installed: not at all; pip install 'micronet-lsq>=0.2'" in done.stderr


def test_their_quantizer_trains_in_mixed_precision_and_names_a_bad_batch(environment):
    code = (
        "import torch\n"
        "from micronet.errors import QuantizationError\n"
        "from micronet.registry import create\n"
        "images = torch.randn(4, 3, 16, 16)\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())\n"
        "prepared = create('quantizer', 'lsq').prepare(net, (images,)).train()\n"
        "try:\n"
        "    prepared(images * torch.inf)\n"
        "except QuantizationError as error:\n"
        "    print('activation_quantizers' in str(error))\n"
        "with torch.autocast('cpu', torch.bfloat16):\n"
        "    outputs = prepared(images)\n"
        "outputs.float().sum().backward()\n"
        "print(outputs.dtype, all(p.grad.isfinite().all() for p in prepared.parameters()))\n"
        "print(prepared.half()(images.half()).dtype)"
    )
    done = environment.run(["-c", code])
    assert done.stdout.split() == ["True", "torch.bfloat16", "True", "torch.float16"]
