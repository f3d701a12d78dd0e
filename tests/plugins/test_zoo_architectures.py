"""Residual networks for small images, and torchvision's models by name."""

import pytest
import torch
import torchvision
from micronet_zoo import TORCHVISION_DETECTORS, TORCHVISION_MODELS, TORCHVISION_SEGMENTERS
from torchvision.models import WeightsEnum

from micronet import registry
from micronet.errors import DataError, OptionError
from micronet.measure import params_m


def test_every_model_of_torchvision_for_the_tasks_is_registered():
    models = torchvision.models
    detectors = models.list_models(module=models.detection)
    detectors.remove("keypointrcnn_resnet50_fpn")
    assert sorted(TORCHVISION_MODELS) == models.list_models(module=models)
    assert sorted(TORCHVISION_SEGMENTERS) == models.list_models(module=models.segmentation)
    assert sorted(TORCHVISION_DETECTORS) == detectors
    listed = [entry.name for entry in registry.list("model") if "/" in entry.name]
    names = (*TORCHVISION_MODELS, *TORCHVISION_SEGMENTERS, *TORCHVISION_DETECTORS)
    assert listed == [f"torchvision/{name}" for name in sorted(names)]


@pytest.mark.parametrize(
    ("depth", "layers", "millions"),
    [(18, 21, 11.174), (34, 37, 21.282), (50, 54, 23.521), (101, 105, 42.513), (152, 156, 58.157)],
)
def test_residual_networks_have_the_known_layers_and_parameters(create, depth, layers, millions):
    model = create("model", f"resnet{depth}").build().eval()
    weighted = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(weighted) == layers
    assert params_m(model) == pytest.approx(millions, abs=0.0005)


def test_a_residual_network_sees_small_images_at_full_size(create):
    model = create("model", "resnet18", num_classes=3).build().eval()
    sizes = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert sizes == [(2, 64, 32, 32)]


@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_1", "mobilenet_v3_small"])
def test_a_torchvision_model_gives_one_logit_for_each_class_in_both_modes(create, name):
    model = create("model", f"torchvision/{name}", num_classes=7).build()
    for training in (True, False):
        assert model.train(training)(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("classes", [1000, 7])
@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_1", "mobilenet_v3_small"])
def test_trained_weights_load_and_the_last_layer_fits_the_classes(
    create, monkeypatch, name, classes
):
    aux = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    trained = torchvision.models.get_model(name, **aux).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: trained)
    model = create("model", f"torchvision/{name}", weights="DEFAULT", num_classes=classes).build()
    kept = [k for k, tensor in model.state_dict().items() if torch.equal(tensor, trained[k])]
    assert len(model.state_dict()) - len(kept) == (0 if classes == 1000 else 2)
    assert model.eval()(torch.randn(2, 3, 64, 64)).shape == (2, classes)


def test_weights_that_cannot_be_fetched_are_told_in_words(create, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    model = create("model", "torchvision/squeezenet1_1", weights="DEFAULT")
    with pytest.raises(DataError, match=r"could not be fetched \(no network\).*squeezenet1_1-"):
        model.build()


def test_unknown_weights_are_answered_with_those_that_exist(create):
    model = create("model", "torchvision/squeezenet1_1", weights="DEFAUT")
    with pytest.raises(OptionError, match=r"mean 'DEFAULT'\? Allowed: IMAGENET1K_V1, DEFAULT"):
        model.build()


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("googlenet", "DEFAULT"),
        ("inception_v3", "DEFAULT"),
        ("maxvit_t", "DEFAULT"),
        ("mobilenet_v3_small", "DEFAULT"),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"),
    ],
)
def test_a_structure_is_that_of_the_trained_model_and_nothing_is_fetched(
    create, monkeypatch, name, weights
):
    technique = create("model", f"torchvision/{name}", weights=weights)

    def fetch(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    structure = technique.structure()
    with pytest.raises(DataError, match="could not be fetched"):
        technique.build()
    fresh = {}
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: fresh)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
    trained = technique.build()
    shapes = {key: tensor.shape for key, tensor in trained.state_dict().items()}
    assert {key: tensor.shape for key, tensor in structure.state_dict().items()} == shapes
    own = ("transform_input", "image_size")
    kept = [getattr(trained, key, None) for key in own]
    assert [getattr(structure, key, None) for key in own] == kept


def test_weights_for_larger_images_are_kept_whole(create, monkeypatch):
    known = torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1
    trained = torchvision.models.get_model("vit_b_16", image_size=384).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: trained)
    model = create("model", "torchvision/vit_b_16", weights=known.name, num_classes=7).build()
    kept = [k for k, tensor in model.state_dict().items() if torch.equal(tensor, trained[k])]
    assert len(model.state_dict()) - len(kept) == 2


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_a_torchvision_segmenter_gives_logits_for_each_pixel(create, name):
    model = create("model", f"torchvision/{name}", num_classes=5).build()
    for training in (True, False):
        outputs = model.train(training)(torch.rand(2, 3, 32, 48))
        assert {key: tensor.shape for key, tensor in outputs.items()} == {"out": (2, 5, 32, 48)}


DETECTORS = {
    "ssdlite320_mobilenet_v3_large": {},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"min_size": 64, "max_size": 96},
    "retinanet_resnet50_fpn": {"min_size": 64, "max_size": 96},
}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_torchvision_detector_learns_from_targets_and_gives_boxes(create, name):
    torch.manual_seed(0)
    model = create("model", f"torchvision/{name}", num_classes=4, **DETECTORS[name]).build()
    images = list(torch.rand(2, 3, 64, 96))
    targets = [
        {"boxes": torch.tensor([[8.0, 8.0, 40.0, 50.0]]), "labels": torch.tensor([3])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    assert sum(model.train()(images, targets).values()).isfinite()
    with torch.no_grad():
        found = model.eval()(images)
    assert [set(each) for each in found] == [{"boxes", "labels", "scores"}] * 2


def test_images_are_scaled_within_the_sizes_that_are_asked_for(create):
    name = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"
    transform = create("model", name, min_size=64, max_size=80).build().transform
    images, _ = transform([torch.rand(3, 100, 200)])
    assert images.image_sizes == [(40, 80)]
    with pytest.raises(OptionError, match="has no option 'min_size'"):
        create("model", "torchvision/ssdlite320_mobilenet_v3_large", min_size=64)


@pytest.mark.parametrize(
    ("name", "fresh"),
    [
        ("deeplabv3_mobilenet_v3_large", 2),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 4),
        ("retinanet_resnet50_fpn", 2),
        ("ssdlite320_mobilenet_v3_large", 12),
    ],
)
def test_trained_weights_of_other_tasks_load_and_the_heads_fit_the_classes(
    create, monkeypatch, name, fresh
):
    classes = 21 if name.startswith("deeplab") else 91
    options = {"aux_loss": True} if name.startswith("deeplab") else {}
    trained = torchvision.models.get_model(
        name, num_classes=classes, weights_backbone=None, **options
    ).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: trained)
    model = create("model", f"torchvision/{name}", weights="DEFAULT", num_classes=4).build()
    state = model.state_dict()
    kept = [key for key, tensor in state.items() if torch.equal(tensor, trained[key])]
    assert len(state) - len(kept) == fresh
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = model.eval()(images if classes == 21 else list(images))
    if classes == 21:
        assert {key: tensor.shape for key, tensor in found.items()} == {"out": (2, 4, 64, 64)}
    else:
        assert all(label < 4 for each in found for label in each["labels"])


def test_a_backbone_may_come_with_weights_of_its_own(create, monkeypatch):
    name = "torchvision/lraspp_mobilenet_v3_large"
    trained = torchvision.models.mobilenet_v3_large().state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: trained)
    model = create("model", name, weights_backbone="DEFAULT", num_classes=4).build()
    assert torch.equal(model.backbone["0"][0].weight, trained["features.0.0.weight"])
    with pytest.raises(OptionError, match=r"no weights_backbone 'BEST'.*Allowed: IMAGENET1K_V1"):
        create("model", name, weights_backbone="BEST").build()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", {"weights": "DEFAULT", "max_size": 96}),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", {"weights_backbone": "DEFAULT"}),
        ("retinanet_resnet50_fpn", {"weights": "COCO_V1"}),
        ("ssdlite320_mobilenet_v3_large", {"weights": "DEFAULT"}),
        ("deeplabv3_mobilenet_v3_large", {"weights": "DEFAULT"}),
    ],
    ids=str,
)
def test_a_structure_of_other_tasks_is_that_of_the_trained_model_and_fetches_nothing(
    create, monkeypatch, name, options
):
    technique = create("model", f"torchvision/{name}", num_classes=4, **options)

    def fetch(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    structure = technique.structure()
    with pytest.raises(DataError, match="could not be fetched"):
        technique.build()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
    trained = technique.build()
    assert str(structure) == str(trained).replace("  (aux_classifier): None\n", "")
    shapes = {key: tensor.shape for key, tensor in trained.state_dict().items()}
    assert {key: tensor.shape for key, tensor in structure.state_dict().items()} == shapes
    assert all(parameter.requires_grad for parameter in trained.parameters())
