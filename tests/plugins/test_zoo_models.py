"""The models that come with micronet."""

import pytest
import torch

from micronet.errors import OptionError
from micronet.measure import params_m


@pytest.mark.parametrize("name", ["nin", "nin_gc"])
@pytest.mark.parametrize("classes", [10, 3])
def test_an_image_becomes_one_logit_for_each_class(create, name, classes):
    model = create("model", name, num_classes=classes).build().eval()
    with torch.no_grad():
        out = model(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, classes)
    assert out.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "weights", "everything"), [("nin", 0.966, 0.970), ("nin_gc", 0.578, 0.591)]
)
def test_default_models_have_the_documented_number_of_parameters(create, name, weights, everything):
    model = create("model", name).build()
    convolutions = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(convolutions) / 1e6 == pytest.approx(weights, abs=0.0005)
    assert params_m(model) == pytest.approx(everything, abs=0.0005)


@pytest.mark.parametrize("name", ["nin", "nin_gc"])
def test_weights_come_from_torchs_seed(create, name):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(next(create("model", name).build().parameters()))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_cfg_sets_the_channels_of_each_layer(create):
    cfg = (16, 12, 8, 16, 20, 16, 24, 28)
    model = create("model", "nin", cfg=list(cfg)).build()
    convolutions = [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [*cfg, 10]


@pytest.mark.parametrize("name", ["nin", "nin_gc"])
@pytest.mark.parametrize("cfg", [(8,) * 7, (8,) * 9, (), (0,) * 8, (64,) * 7 + (-64,)], ids=str)
def test_a_cfg_of_another_length_or_without_channels_is_refused(create, name, cfg):
    with pytest.raises(OptionError, match="eight channel counts of at least 1"):
        create("model", name, cfg=cfg).build()


@pytest.mark.parametrize("cfg", [8, "wide", (1.5,) * 8, (True,) * 8], ids=str)
def test_a_cfg_that_is_no_list_of_integers_is_refused(create, cfg):
    with pytest.raises(OptionError, match="cfg must be a list of int"):
        create("model", "nin", cfg=cfg)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ((255, 256, 256, 512, 512, 512, 1024, 1024), r"cfg\[0\] must be a multiple of 2"),
        ((256, 256, 250, 512, 512, 512, 1024, 1024), r"cfg\[2\] must be a multiple of 16"),
        ((256, 256, 256, 512, 512, 512, 1024, 1020), r"cfg\[7\] must be a multiple of 8"),
    ],
)
def test_channels_that_the_groups_do_not_divide_are_refused_by_position(create, cfg, message):
    with pytest.raises(OptionError, match=message):
        create("model", "nin_gc", cfg=cfg).build()


def test_the_older_librarys_pruned_channel_counts_build(create):
    model = create("model", "nin_gc", cfg=(154, 162, 144, 304, 320, 320, 608, 584)).build()
    assert model.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_a_model_for_no_classes_is_refused(create):
    with pytest.raises(OptionError, match="num_classes must be at least 1"):
        create("model", "nin", num_classes=0)
