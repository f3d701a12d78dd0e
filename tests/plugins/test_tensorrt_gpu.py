"""The backend `tensorrt` on a GPU. Skipped, with the reason, where there is none.

The contracts that all backends keep (any batch size, another folder, no torch, the same bits from
call to call) are checked on a GPU by the conformance kit; here is what is TensorRT's own.
"""

import attrs
import numpy as np
import pytest
import torch
from micronet_tensorrt import gpu
from micronet_tensorrt.engine_file import EngineFile
from torch import nn

from micronet.errors import DeployError

REASON = gpu.why_not_here()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
X = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """A residual addition, a depthwise and a transposed convolution, a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem(x).relu(), 2)
        x = (x + self.depthwise(x)).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(self.up(x), 1).flatten(1))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def quantized(create, net):
    quantizer = create("quantizer", "iao", target="tensorrt")
    prepared = quantizer.prepare(net, (X,))
    quantizer.calibrate(prepared, [X])
    return quantizer.convert(prepared)


@pytest.fixture(scope="module")
def deploy(create, tmp_path_factory):
    def run(model, dynamic=("batch",), **options):
        backend = create("deploy_backend", "tensorrt", **{"max_batch": 8, **options})
        artifact = backend.export(
            model, (X[:2],), tmp_path_factory.mktemp("engine"), dynamic=dynamic
        )
        return backend, artifact, backend.load(artifact)

    return run


@pytest.fixture(scope="module")
def integers(deploy, quantized):
    return deploy(quantized)


def outputs(model, x=X):
    with torch.no_grad():
        return model(x).numpy()


def error(found, expected):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_float32_is_exact_and_no_tf32(deploy, net):
    _, _, runner = deploy(net)
    assert error(runner(X.numpy()), outputs(net)) <= 1e-4


def test_float16_is_near(deploy, net):
    _, _, runner = deploy(net, precision="fp16")
    assert 0 < error(runner(X.numpy()), outputs(net)) <= 1e-2


def test_int8_is_within_a_step_of_the_simulation(integers, quantized):
    _, _, runner = integers
    assert error(runner(X.numpy()), outputs(quantized)) <= 1 / 127


@pytest.mark.parametrize("count", [0, 1, 3, 8, 19])
def test_batches_below_and_above_the_largest(integers, count):
    _, _, runner = integers
    many = np.concatenate([X.numpy()] * 3)
    expected = np.concatenate([runner(many[i : i + 1]) for i in range(19)])[:count]
    assert np.allclose(runner(many[:count]), expected, atol=1e-2 * np.abs(runner(many)).max())


def test_a_fixed_batch_takes_no_other(deploy, net):
    _, _, runner = deploy(net, dynamic=())
    assert error(runner(X[:2].numpy()), outputs(net, X[:2])) <= 1e-4
    with pytest.raises(DeployError, match=r"must be float32 \[2, 3, 16, 16\], got"):
        runner(X[:1].numpy())


class Several(nn.Module):
    """Images and a row of numbers for each; a map, rows and integers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)

    def forward(self, image, gate):
        x = self.stem(image) * gate["by"][:, :, None, None]
        return {"map": x, "rows": (x.mean((2, 3)), x.mean((2, 3)).argmax(1))}


@pytest.mark.parametrize("count", [0, 1, 19])
def test_several_inputs_and_outputs_go_through_in_pieces(create, tmp_path, count):
    torch.manual_seed(0)
    model = Several().eval()
    backend = create("deploy_backend", "tensorrt", max_batch=8)
    runner = backend.load(backend.export(model, (X[:2], {"by": torch.ones(2, 4)}), str(tmp_path)))
    images, by = torch.randn(count, 3, 16, 16), torch.randn(count, 4)
    found = runner(images.numpy(), {"by": by.numpy()})
    with torch.no_grad():
        expected = model(images, {"by": by})
    assert np.allclose(found["map"], expected["map"], atol=1e-4)
    assert np.allclose(found["rows"][0], expected["rows"][0], atol=1e-4)
    assert np.array_equal(found["rows"][1], expected["rows"][1])


def test_height_and_width_may_differ_within_the_profile(deploy, net):
    _, _, runner = deploy(net, dynamic=("batch", "height", "width"))
    wide = torch.randn(3, 3, 8, 32, generator=torch.Generator().manual_seed(6))
    assert error(runner(wide.numpy()), outputs(net, wide)) <= 1e-4
    with pytest.raises(DeployError, match="of 3x8-32x8-32 for each image, got 3x16x33"):
        runner(np.zeros((1, 3, 16, 33), np.float32))


def test_buffers_are_kept_and_grow_only_when_they_must(integers):
    backend, artifact, _ = integers
    runner = backend.load(artifact)
    runner(X[:4].numpy())
    before = {name: int(buffer.device) for name, buffer in runner._buffers.items()}
    runner(X[:4].numpy())
    runner(X[:1].numpy())
    assert {name: int(buffer.device) for name, buffer in runner._buffers.items()} == before
    runner(X.numpy())
    assert runner._buffers["input"].host.size == X.numel()


def test_it_lives_beside_torch_on_the_same_gpu(integers):
    _, _, runner = integers
    expected = runner(X.numpy())
    on_gpu = torch.ones(1000, device="cuda").sum()
    assert np.array_equal(runner(X.numpy()), expected)
    assert float(on_gpu + torch.ones(1, device="cuda")) == 1001


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensorrt": "9.9.9"}, r"built with TensorRT 9\.9\.9, here is"),
        ({"compute_capability": "1.0"}, r"compute capability 1\.0, here is"),
    ],
)
def test_an_engine_of_another_platform_is_refused_before_it_is_loaded(
    integers, tmp_path, change, words
):
    backend, artifact, _ = integers
    file = EngineFile.read(artifact.path)
    foreign = attrs.evolve(file, platform=attrs.evolve(file.platform, **change), plan=b"no plan")
    foreign.write(tmp_path / artifact.file)
    with pytest.raises(DeployError, match=words):
        backend.load(attrs.evolve(artifact, directory=tmp_path))


def test_a_plan_that_is_none_is_refused_in_words(integers, tmp_path):
    backend, artifact, _ = integers
    file = attrs.evolve(EngineFile.read(artifact.path), plan=b"no plan")
    file.write(tmp_path / artifact.file)
    with pytest.raises(DeployError, match="TensorRT can't load the engine: "):
        backend.load(attrs.evolve(artifact, directory=tmp_path))


def test_the_timings_of_kernels_are_kept_for_the_next_build(integers):
    from micronet_tensorrt.building import timing_cache_file

    assert timing_cache_file(gpu.platform()).stat().st_size > 0
