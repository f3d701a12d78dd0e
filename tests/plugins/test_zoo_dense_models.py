"""The small U-Net and the small YOLO."""

import pytest
import torch

from micronet.errors import OptionError
from micronet.measure import params_m


@pytest.fixture
def yolo(create):
    torch.manual_seed(0)
    return create("model", "yolo_small", num_classes=3).build()


@pytest.mark.parametrize(("name", "millions"), [("unet_small", 0.4905), ("yolo_small", 0.4318)])
def test_the_models_have_the_documented_number_of_parameters(create, name, millions):
    assert params_m(create("model", name).build()) == pytest.approx(millions, abs=0.0001)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(32, 48), (33, 50)], ids=str)
def test_a_unet_gives_logits_for_each_pixel_of_any_image(create, size, training):
    model = create("model", "unet_small", num_classes=4, width=4).build().train(training)
    assert model(torch.rand(2, 3, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("training", [True, False])
def test_a_yolo_gives_the_same_raw_maps_in_both_modes(yolo, training):
    outputs = yolo.train(training)(torch.rand(2, 3, 64, 96))
    assert isinstance(outputs, tuple)
    assert [output.shape for output in outputs] == [(2, 7, 8, 12), (2, 7, 4, 6), (2, 7, 2, 3)]


@pytest.mark.parametrize("name", ["unet_small", pytest.param("yolo_small", marks=pytest.mark.slow)])
def test_the_models_are_pruned_quantized_and_deployed(create, with_statistics, tmp_path, name):
    torch.manual_seed(0)
    model = with_statistics(create("model", name, num_classes=3, width=4).build())
    images = torch.rand(2, 3, 64, 64)
    pruned = create("pruner", "normal", percent=0.3).prune(model, (images,)).model
    assert params_m(pruned) < 0.75 * params_m(model)
    quantizer = create("quantizer", "iao", w_bits=8, a_bits=8)
    prepared = quantizer.prepare(pruned, (images,))
    quantizer.calibrate(prepared, [images])
    fused = create("fuser", "bn").fuse(prepared, (images,)).eval()
    backend = create("deploy_backend", "onnxruntime")
    found = backend.load(backend.export(fused, (images,), tmp_path / "engine"))(images.numpy())
    with torch.no_grad():
        simulated, real = fused(images), pruned.eval()(images)
    if name == "unet_small":
        found, simulated, real = (found,), (simulated,), (real,)
    for engine, expected, exact in zip(found, simulated, real, strict=True):
        step = expected.abs().max() / 127
        assert (torch.from_numpy(engine) - expected).abs().max() < 2 * step
        assert (expected - exact).pow(2).mean() < 0.01 * exact.var()


@pytest.mark.parametrize("name", ["unet_small", "yolo_small"])
@pytest.mark.parametrize("option", ["num_classes", "width"])
def test_a_model_of_nothing_is_refused(create, name, option):
    with pytest.raises(OptionError, match=f"{option} must be at least 1"):
        create("model", name, **{option: 0})
