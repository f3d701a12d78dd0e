"""A recipe that quantizes single layers otherwise than the rest."""

import pytest
import torch

from micronet import load_packed

LAYERS = {"4": {"w_bits": 4}, "10": "float"}


def steps(layers):
    return (
        {"train": {"epochs": 1, "batch_size": 32, "lr": 1e-2}},
        {"quantize": {"quantizer": "iao", "layers": layers}},
        {"train": {"epochs": 2, "batch_size": 32, "lr": 1e-3}},
        "fuse",
        "deploy",
    )


def test_it_runs_to_an_engine_and_goes_on_where_it_was_killed(make_project, tmp_path):
    whole, killed = (make_project(tmp_path / name) for name in ("whole", "killed"))
    for project in (whole, killed):
        project.write_recipe(*steps(LAYERS))
    done = whole.run()
    assert done.returncode == 0, done.stderr
    stopped = killed.run(MISHAP="killed", MISHAP_AT="after 03-train.epoch.pt 1")
    assert stopped.returncode == -9, stopped.stderr
    assert killed.run().returncode == 0
    assert killed.rows() == whole.rows()
    assert killed.weights() == whole.weights()
    deployed = whole.rows()[-1]
    assert deployed["parity"] == 1
    assert deployed["w_bits"] == 4  # of most weights


def test_its_packed_file_builds_the_same_layers(project, monkeypatch):
    project.write_recipe(*steps(LAYERS))
    assert project.run().returncode == 0
    packed = project.micronet("pack", "out", "-o", "packed.safetensors")
    assert packed.returncode == 0, packed.stderr
    monkeypatch.syspath_prepend(str(project.folder))
    import tiny

    model = load_packed(project.folder / "packed.safetensors", model=tiny.model)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert (kinds["0"], kinds["4"], kinds["10"]) == ("QuantizedConv2d", "QuantizedConv2d", "Linear")
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ({"11": "float"}, "layers names none that this quantizer quantizes: '11'."),
        ({"4": {"bits": 4}}, "layers.4 has no option 'bits'."),
        ({"4": "int4"}, "layers.4 must be float, or a mapping of the quantizer's options"),
        (["4"], "layers must be a mapping, got"),
    ],
)
def test_what_makes_no_sense_is_told_by_validate(project, layers, sentence):
    project.write_recipe(*steps(layers))
    done = project.micronet("validate", "tiny.yaml")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_lacks_the_width_of_one_layer_says_so(project):
    narrow = {"4": {"w_bits": 16}}
    quantize = {"quantize": {"quantizer": "iao", "layers": narrow}}
    project.write_recipe(quantize, "calibrate", {"deploy": {"backend": "tensorrt"}})
    done = project.micronet("validate", "tiny.yaml")
    assert done.returncode == 2
    assert "16-bit weights" in done.stderr
