"""Residual networks for small images, and torchvision's classification models by name."""

import pytest
import torch
import torchvision
from micronet_zoo import TORCHVISION_MODELS
from torchvision.models import WeightsEnum

from micronet import registry
from micronet.errors import DataError, OptionError
from micronet.measure import params_m


def test_every_classification_model_of_torchvision_is_registered():
    listed = [entry.name for entry in registry.list("model") if "/" in entry.name]
    assert listed == [f"torchvision/{name}" for name in sorted(TORCHVISION_MODELS)]
    assert sorted(TORCHVISION_MODELS) == torchvision.models.list_models(module=torchvision.models)


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
