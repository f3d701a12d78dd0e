"""Torchvision's detectors, whose parts are followed and deployed one by one."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import detection

from micronet.errors import DeployError
from micronet.graph import graphs
from micronet.quantization import fake_quantizers
from micronet.registry import create

IMAGES = [torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(i)) for i in range(2)]
PARTS = {
    "retinanet_resnet50_fpn": ["backbone", "head"],
    "fasterrcnn_mobilenet_v3_large_320_fpn": [
        "backbone",
        "rpn.head",
        "roi_heads.box_head",
        "roi_heads.box_predictor",
    ],
}
pytestmark = pytest.mark.filterwarnings("ignore:.* can't be followed")


@pytest.fixture(scope="module", params=PARTS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def detector(name):
    """Random weights that find something, and batch norms that are not the identity."""
    torch.manual_seed(0)
    build = getattr(detection, name)
    model = build(weights=None, weights_backbone=None, num_classes=5, min_size=64, max_size=80)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    if name.startswith("retinanet"):
        nn.init.zeros_(model.head.classification_head.cls_logits.bias)
    return model.eval()


def prepare(detector, **options):
    quantizer = create("quantizer", "iao", **options)
    return quantizer, quantizer.prepare(detector, (IMAGES,))


@torch.no_grad()
def normalized(model):
    """What the backbone gets."""
    return model.transform(IMAGES)[0].tensors


@torch.no_grad()
def features(model):
    return model.backbone(normalized(model))


def snr(expected, found):
    noise = (expected - found).pow(2).mean().clamp_min(1e-20)
    return float(10 * torch.log10(expected.pow(2).mean() / noise))


def test_a_warning_names_the_parts_that_have_graphs(name, detector):
    listed = ", ".join(f"'{part}'" for part in PARTS[name])
    with pytest.warns(UserWarning, match=f"Graphs of their own have {listed}"):
        _, prepared = prepare(detector)
    assert [part for part, _ in graphs(prepared)] == PARTS[name]


def test_with_its_quantizers_off_it_detects_the_same(detector):
    _, prepared = prepare(detector)
    for _, quantizer in fake_quantizers(prepared):
        quantizer.mode = "off"
    for expected, found in zip(detector(IMAGES), prepared.eval()(IMAGES), strict=True):
        assert len(expected["boxes"]) > 10
        torch.testing.assert_close(found, expected)


def test_batch_norms_in_its_parts_fold(detector):
    fused = create("fuser", "bn").fuse(detector, (IMAGES,))
    assert not any(isinstance(module, _BatchNorm) for module in fused.modules())
    for expected, found in zip(detector(IMAGES), fused(IMAGES), strict=True):
        torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=1e-3, atol=1e-2)


def test_what_calibration_refines_reaches_into_its_parts(detector):
    errors = []
    for options in ({}, {"rounding": "learned", "equalize": True, "bias_correction": True}):
        quantizer, prepared = prepare(detector, w_bits=4, **options)
        quantizer.calibrate(prepared, [(IMAGES,)])
        expected, found = features(detector), features(prepared.eval())
        errors.append(sum(snr(expected[level], found[level]) for level in expected))
    assert errors[1] > errors[0] + 1


def test_a_part_is_deployed_where_the_whole_cannot_be(detector, tmp_path):
    quantizer, prepared = prepare(detector)
    quantizer.calibrate(prepared, [(IMAGES,)])
    converted = quantizer.convert(create("fuser", "bn").fuse(prepared.eval(), (IMAGES,)))
    backend = create("deploy_backend", "onnxruntime")
    with pytest.raises(DeployError, match=r"Export a part .*, as in model\.backbone, .*'backbone'"):
        backend.export(converted, (IMAGES,), tmp_path)
    assert not list(tmp_path.iterdir())
    images = normalized(converted)
    runner = backend.load(backend.export(converted.backbone, (images,), tmp_path))
    expected, found = features(converted), runner(images.numpy())
    assert list(found) == list(expected)
    assert all(snr(expected[level], torch.from_numpy(found[level])) > 25 for level in expected)
