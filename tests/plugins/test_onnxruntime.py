"""The backend `onnxruntime`: files on disk, and an engine that needs no torch."""

import json
import os
import subprocess
import sys

import attrs
import numpy as np
import onnxruntime
import pytest
import torch

from micronet.errors import DeployError
from micronet.techniques import Artifact

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def backend(create):
    return create("deploy_backend", "onnxruntime")


@pytest.fixture(scope="module")
def model(create):
    torch.manual_seed(0)
    return create("model", "nin", cfg=(96, 80, 48, 96, 96, 96, 96, 96)).build().eval()


@pytest.fixture(scope="module")
def converted(create, model):
    quantizer = create("quantizer", "iao")
    prepared = quantizer.prepare(model, (X,))
    quantizer.calibrate(prepared, [X])
    return quantizer.convert(create("fuser", "bn").fuse(prepared, (X,)))


@pytest.fixture(scope="module")
def floating(backend, model, tmp_path_factory):
    return backend.export(model, (X,), tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module")
def integer(backend, converted, tmp_path_factory):
    return backend.export(converted, (X,), tmp_path_factory.mktemp("int8"))


def test_it_is_available_here(backend):
    assert backend.available() is None


def test_a_float_models_engine_computes_the_same(backend, model, floating):
    with torch.no_grad():
        expected = model(X).numpy()
    assert np.allclose(backend.load(floating)(X.numpy()), expected, rtol=1e-3, atol=1e-5)


def test_an_8_bit_file_is_about_a_quarter_of_the_float_file(integer, floating):
    assert integer.size_bytes == integer.path.stat().st_size
    assert 0.25 < integer.size_bytes / floating.size_bytes < 0.35


def test_the_folder_holds_the_engines_file_and_its_card_only(integer):
    names = sorted(path.name for path in integer.directory.iterdir())
    assert names == ["artifact.json", "model.onnx"]
    card = json.loads((integer.directory / "artifact.json").read_text())
    assert card["backend"] == "onnxruntime"
    (spec,) = card["signature"]["inputs"]["parts"]
    assert (spec["shape"], spec["example"]) == (["batch", 3, 32, 32], [4, 3, 32, 32])
    assert card["engine"] == f"onnxruntime {onnxruntime.__version__}"


def test_an_artifact_is_read_back_from_its_folder(integer):
    assert Artifact.read(integer.directory) == integer


def test_the_number_of_threads_changes_no_result_beyond_rounding(backend, integer):
    one, two = (backend.load(integer, threads=n)(X.numpy()) for n in (1, 2))
    assert np.allclose(one, two, atol=1e-5)


def test_a_folder_without_a_card_is_refused_by_name(tmp_path):
    with pytest.raises(DeployError, match=rf"{tmp_path.name} holds no readable artifact"):
        Artifact.read(tmp_path)


@pytest.mark.parametrize("card", ["{", "[]", "{}", '{"signature": 3}'])
def test_a_broken_card_is_refused_in_words(tmp_path, card):
    (tmp_path / "artifact.json").write_text(card)
    with pytest.raises(DeployError, match="holds no readable artifact"):
        Artifact.read(tmp_path)


def test_a_broken_engine_file_is_refused_in_words(backend, integer, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    artifact = attrs.evolve(integer, directory=tmp_path)
    with pytest.raises(DeployError, match="can't load"):
        backend.load(artifact)


SERVE = """
import pathlib, sys
import numpy as np
from micronet import registry
from micronet.techniques import Artifact

artifact = Artifact.read(pathlib.Path(sys.argv[1]))
runner = registry.create("deploy_backend", artifact.backend).load(artifact, threads=1)
np.save(sys.argv[3], runner(np.load(sys.argv[2])))
assert "torch" not in sys.modules
"""


def test_the_engine_runs_where_torch_cannot_be_imported(backend, integer, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "torch.py").write_text("raise ImportError('there is no torch here')\n")
    np.save(tmp_path / "in.npy", X.numpy())
    path = os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", SERVE, integer.directory, tmp_path / "in.npy", tmp_path / "out.npy"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npy")
    assert np.array_equal(found, backend.load(integer, threads=1)(X.numpy()))
