"""The backend `openvino`: float and integer models, files on disk, an engine without torch."""

import json
import os
import subprocess
import sys

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from micronet.errors import DeployError, OptionError
from micronet.quantization import fake_quantizers
from micronet.techniques import Artifact

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

from micronet_openvino.core import core  # noqa: E402

X = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(4))


class Residual(nn.Module):
    """Convolutions, some in groups, a residual addition, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.shuffle = nn.ChannelShuffle(2)
        self.body = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.body_bn = nn.BatchNorm2d(8)
        self.wide, self.head = nn.Conv2d(8, 256, 1), nn.Linear(256, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem_bn(self.stem(x)).relu(), 2)
        x = (x + self.body_bn(self.body(self.shuffle(x)))).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(self.wide(x), 1).flatten(1))


@attrs.frozen
class Deployed:
    model: nn.Module
    artifact: Artifact
    runner: object

    def simulated(self, x):
        with torch.no_grad():
            return self.model(x).numpy()

    def operations(self):
        """(type, implementation) of what the engine runs."""
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = core().compile_model(self.artifact.path, "CPU", options)
        infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
        return {
            tuple(info[key].astype(str) for key in ("layerType", "primitiveType")) for info in infos
        }


@pytest.fixture(scope="module")
def quantize(create):
    """Calibrates, fuses and converts a model."""

    def run(model, options):
        quantizer = create("quantizer", "iao", **options)
        prepared = quantizer.prepare(model, (X[:2],))
        quantizer.calibrate(prepared, [X])
        return quantizer.convert(create("fuser", "bn").fuse(prepared, (X[:2],)))

    return run


@pytest.fixture(scope="module")
def deploy(create, tmp_path_factory):
    """Exports a model and loads the engine."""

    def run(model, precision="model"):
        backend = create("deploy_backend", "openvino", precision=precision)
        artifact = backend.export(model, (X[:2],), tmp_path_factory.mktemp("engine"))
        return Deployed(model, artifact, backend.load(artifact, threads=1))

    return run


@pytest.fixture(scope="module")
def net(with_statistics):
    torch.manual_seed(0)
    return with_statistics(Residual()).eval()


@pytest.fixture(scope="module")
def floating(deploy, net):
    return deploy(net)


@pytest.fixture(scope="module")
def integer(deploy, quantize, net):
    return deploy(quantize(net, {}))


def test_a_float_models_engine_computes_in_float32(floating):
    assert differs(floating) <= 1e-5


def differs(deployed):
    """The largest error, as a fraction of the largest output."""
    found, expected = deployed.runner(X.numpy()), deployed.simulated(X)
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_8_bits_run_on_integers_and_compute_what_the_simulation_does(integer):
    assert differs(integer) <= 1e-3
    kinds = {how for kind, how in integer.operations() if kind == "Convolution"}
    assert kinds
    assert all(how.endswith("I8") for how in kinds)


OPTIONS = {
    "asymmetric weights per layer": {"w_symmetric": False, "per_channel": False},
    "16 bits": {"w_bits": 16, "a_bits": 16, "a_symmetric": True},
    "16 bits, asymmetric activations": {"a_bits": 16},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_so_do_other_schemes_and_widths(deploy, quantize, net, name):
    assert differs(deploy(quantize(net, OPTIONS[name]))) <= 1e-3


def test_float_activations_before_integer_weights_are_not_rounded(create, deploy, net):
    quantizer = create("quantizer", "dorefa", w_bits=4, a_bits=32)
    assert differs(deploy(quantizer.convert(quantizer.prepare(net, (X[:2],))))) <= 1e-5


def test_a_convolutions_output_is_rounded_before_it_is_added(deploy, quantize, net):
    # The engine would leave that out; with the wide steps of 4 bits it shows.
    options = {"w_bits": 4, "a_bits": 4, "a_symmetric": True}
    assert differs(deploy(quantize(net, options))) <= 1e-3


def test_pixels_in_the_middle_between_two_codes_get_the_simulations(deploy, quantize):
    torch.manual_seed(0)
    deployed = deploy(quantize(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), {}))
    (scale,) = [q.scale for _, q in fake_quantizers(deployed.model)]
    halves = torch.randint(-80, 80, X.shape, generator=torch.Generator().manual_seed(0)) + 0.5
    images = halves * scale
    found, expected = deployed.runner(images.numpy()), deployed.simulated(images)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_every_batch_size_gets_its_results_however_often_it_comes(integer):
    expected = integer.runner(X.numpy())
    for size in (1, 3, 8, 3, 3, 1, 5):
        found = integer.runner(X[:size].numpy())
        assert found.shape == (size, 10)
        assert np.allclose(found, expected[:size], atol=1e-6)


def test_files_hold_integers_and_all_of_them_count(integer, floating):
    names = sorted(path.name for path in integer.artifact.directory.iterdir())
    assert names == ["artifact.json", "model.bin", "model.xml"]
    sizes = {path.name: path.stat().st_size for path in integer.artifact.directory.iterdir()}
    assert integer.artifact.size_bytes == sizes["model.xml"] + sizes["model.bin"]
    float_size = (floating.artifact.directory / "model.bin").stat().st_size
    assert 0.25 < sizes["model.bin"] / float_size < 0.35
    card = json.loads((integer.artifact.directory / "artifact.json").read_text())
    assert card["engine"] == f"openvino {openvino.__version__}"
    assert Artifact.read(integer.artifact.directory) == integer.artifact


def test_exporting_again_gives_the_same_bytes(deploy, integer):
    again = deploy(integer.model)
    for name in ("model.xml", "model.bin"):
        one, two = (each.artifact.directory / name for each in (integer, again))
        assert one.read_bytes() == two.read_bytes()


def test_the_number_of_threads_changes_no_result_beyond_rounding(create, integer):
    two = create("deploy_backend", "openvino").load(integer.artifact, threads=2)
    assert np.allclose(two(X.numpy()), integer.runner(X.numpy()), atol=1e-5)


@pytest.mark.parametrize(("precision", "bits"), [("fp32", 32), ("fp16", 16)])
def test_a_quantized_model_deploys_at_float_precision_too(deploy, net, integer, precision, bits):
    deployed = deploy(integer.model, precision)
    expected = net(X).detach().numpy()
    assert np.abs(deployed.runner(X.numpy()) - expected).max() < 0.05 * np.abs(expected).max()
    assert not any(how.endswith("I8") for _, how in deployed.operations())
    weights = sum(parameter.numel() for parameter in net.parameters())
    size = (deployed.artifact.directory / "model.bin").stat().st_size
    assert weights * bits / 8 * 0.9 < size < weights * bits / 8 * 1.3


def test_int8_of_a_float_model_is_refused(deploy, net):
    with pytest.raises(DeployError, match="is not quantized"):
        deploy(net, "int8")


def test_an_unknown_precision_is_refused(create):
    with pytest.raises(OptionError, match=r"fp32.*got 'fp23'"):
        create("deploy_backend", "openvino", precision="fp23")


def test_a_broken_engine_file_is_refused_in_words(create, integer, tmp_path):
    (tmp_path / "model.xml").write_bytes(b"not a graph")
    artifact = attrs.evolve(integer.artifact, directory=tmp_path)
    with pytest.raises(DeployError, match="can't load"):
        create("deploy_backend", "openvino").load(artifact)


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


def test_the_engine_runs_where_torch_cannot_be_imported(integer, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "torch.py").write_text("raise ImportError('there is no torch here')\n")
    np.save(tmp_path / "in.npy", X.numpy())
    path = os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SERVE,
            integer.artifact.directory,
            tmp_path / "in.npy",
            tmp_path / "out.npy",
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert np.allclose(np.load(tmp_path / "out.npy"), integer.runner(X.numpy()), atol=1e-6)


INTERRUPTED = """
import pathlib, signal, sys
import numpy as np
from micronet import registry
from micronet.techniques import Artifact

artifact = Artifact.read(pathlib.Path(sys.argv[1]))
backend = registry.create("deploy_backend", "openvino")
engines = [backend.load(artifact, threads=1) for _ in range(3)]
for engine in engines:
    engine(np.zeros((2, 3, 32, 32), np.float32))
del engine
while engines:
    del engines[0]
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_process_lives_through_a_signal_after_its_engines_are_gone(floating):
    artifact = floating.artifact
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, artifact.directory],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
