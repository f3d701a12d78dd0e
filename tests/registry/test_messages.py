"""What is unknown is answered with what exists and the nearest match."""

import pytest

from micronet import registry
from micronet.errors import MicronetError, OptionError, PluginError


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("quantiser", "iao", ["no kind 'quantiser'", "mean 'quantizer'", "deploy_backend"]),
        ("quantizer", "ioa", ["no quantizer 'ioa'", "mean 'iao'"]),
        ("observer", "moving_avrage", ["mean 'moving_average'", "Installed: minmax, moving_av"]),
        ("model", "zzzzzz", ["no model 'zzzzzz'", "nin, nin_gc"]),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_one(kind, name, words):
    with pytest.raises(PluginError) as caught:
        registry.get(kind, name)
    for part in words:
        assert part in str(caught.value)


def test_a_name_that_is_like_no_other_gets_no_suggestion():
    with pytest.raises(PluginError) as caught:
        registry.get("model", "zzzzzz")
    assert "Did you mean" not in str(caught.value)


def test_a_name_in_capitals_is_answered_with_the_one_in_small_letters():
    with pytest.raises(PluginError, match="Did you mean 'iao'"):
        registry.get("quantizer", "IAO")


def test_an_unknown_option_is_answered_with_the_nearest_one():
    with pytest.raises(OptionError) as caught:
        registry.create("quantizer", "iao", w_bit=4)
    assert "quantizer 'iao' has no option 'w_bit'. Did you mean 'w_bits'?" in str(caught.value)
    assert caught.value.option == "w_bit"


@pytest.mark.parametrize("option", ["kind", "name"])
def test_an_unknown_option_named_like_an_argument_of_create_is_told_too(option):
    with pytest.raises(OptionError, match=f"has no option '{option}'"):
        registry.create("quantizer", "iao", **{option: 4})


def test_an_option_out_of_range_tells_the_range():
    with pytest.raises(OptionError, match="w_bits must be between 2 and 16, got 99"):
        registry.create("quantizer", "iao", w_bits=99)


def test_a_required_option_that_is_missing_is_named():
    with pytest.raises(OptionError, match="dataset 'image_folder' needs the option 'root'"):
        registry.create("dataset", "image_folder")


def test_every_refusal_is_a_micronet_error():
    with pytest.raises(MicronetError):
        registry.get("quantizer", "nothing")
    with pytest.raises(MicronetError):
        registry.create("quantizer", "iao", nothing=1)


def test_the_list_of_a_kind_holds_that_kind_only():
    assert {entry.kind for entry in registry.list("observer")} - {None} == {"observer"}
    with pytest.raises(PluginError, match="Did you mean 'observer'"):
        registry.list("observers")
