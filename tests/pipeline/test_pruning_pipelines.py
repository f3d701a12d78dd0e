"""Sparse training, pruning, training on, quantization, fusing and the engine, in one run each."""

import json
import math

import pytest
from safetensors.torch import load_file

QUICKLY = {"epochs": 1, "batch_size": 128, "lr": 5e-3}
SPARSE, TRAIN = {"train": {**QUICKLY, "sparsity": 1e-3}}, {"train": QUICKLY}
NIN, NIN_GC = (16, 20, 24, 32, 16, 18, 32, 16), (16, 16, 32, 32, 32, 64, 128, 32)
WAYS = {
    "wbwtab": [{"quantize": {"quantizer": "wbwtab"}}, TRAIN, {"fuse": {"fuser": "binary_bn"}}],
    "dorefa": [{"quantize": {"quantizer": "dorefa"}}, TRAIN],
    "iao": [{"quantize": {"quantizer": "iao"}}, TRAIN],
    "PTQ": [{"quantize": {"quantizer": "iao"}}, {"calibrate": {"batches": 2}}],
    "QAFT": [{"quantize": {"quantizer": "iao"}}, TRAIN, "freeze", TRAIN],
}


def multiples_of(number):
    return lambda cfg: not any(channels % number for channels in cfg)


PRUNERS = {
    "normal": ("nin", NIN, {"pruner": "normal", "percent": 0.4}, multiples_of(1)),
    "regular 8": ("nin", NIN, {"pruner": "regular", "multiple": 8}, multiples_of(8)),
    "regular 16": ("nin", NIN, {"pruner": "regular", "multiple": 16}, multiples_of(16)),
    "gc": (
        "nin_gc",
        NIN_GC,
        {"pruner": "gc", "percent": 0.4},
        lambda cfg: not any(map(math.fmod, cfg, (2, 2, 16, 16, 4, 32, 32, 8))),
    ),
}
PAIRS = [
    ("normal", "dorefa"),
    ("regular 8", "QAFT"),
    ("regular 16", "PTQ"),
    ("gc", "wbwtab"),
    pytest.param("gc", "iao", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("pruner", "way"), PAIRS)
def test_a_pruned_network_is_quantized_fused_and_deployed(project, pruner, way):
    model, cfg, prune, fits = PRUNERS[pruner]
    project.write_recipe(
        SPARSE, {"prune": prune}, TRAIN, *WAYS[way], "fuse", {"deploy": {"min_parity": 0.98}},
        model={"name": model, "cfg": list(cfg)}, data="digits",
    )  # fmt: skip

    done = project.run()

    assert done.returncode == 0, done.stderr
    rows = project.rows()
    assert rows[-1]["step"].endswith("deploy")
    assert rows[-1]["parity"] >= 0.98
    assert rows[1]["params_m"] < 0.9 * rows[0]["params_m"]
    assert rows[1]["gflops"] < 0.9 * rows[0]["gflops"]
    state = load_file(project.out / "steps" / "02-prune.safetensors")
    assert fits([len(t) for name, t in sorted_by_layer(state) if name.endswith("conv.weight")])


def sorted_by_layer(state):
    """A network's tensors but the last layer's, in the order of the layers."""
    tensors = sorted(state.items(), key=lambda item: int(item[0].split(".")[1]))
    return [(name, tensor) for name, tensor in tensors if not name.startswith("model.10.")]


def test_layers_that_stay_whole_are_named_with_their_reasons(project):
    project.write_recipe(
        {"prune": {"pruner": "normal", "percent": 0.5, "keep": ["model.[0-7].*"]}},
        model={"name": "nin", "cfg": [16] * 8}, data="digits",
    )  # fmt: skip

    done = project.run()

    assert done.returncode == 0, done.stderr
    (_, row), results = project.rows(), (project.out / "results.md").read_text("utf-8")
    reasons = row["reasons"]
    assert reasons["model.10.conv"] == "it gives the model's outputs"
    assert reasons["model.0.conv"] == "keep says so (model.[0-7].*)"
    for name, reason in reasons.items():
        (line,) = [line for line in results.splitlines() if line.endswith(f"whole: {reason}.")]
        assert name in line
    told = [line for line in done.stderr.splitlines() if line.startswith("  ")]
    assert "  model.10.conv stays whole: it gives the model's outputs" in told
    assert any(line.endswith(" more stay whole: keep says so (model.[0-7].*)") for line in told)
    assert told[-1] == "  all of them: out/results.md"
    assert max(map(len, told)) < 160
    record = json.loads((project.out / "steps" / "01-prune.json").read_text("utf-8"))
    assert record["row"]["reasons"] == reasons
